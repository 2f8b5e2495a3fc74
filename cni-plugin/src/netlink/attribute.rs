//! Netlink attributes, written: a length, a type, a value, padding.

/// Attributes under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

/// Says that the value is attributes; nf_tables insists on it.
const NLA_F_NESTED: u16 = 1 << 15;

impl Writer {
    /// One attribute.
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A number in network order.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A number in the machine's order.
    pub(crate) fn ne32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Text with its terminating zero.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Attributes inside an attribute.
    pub(crate) fn nest(self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let inner = inner(Self::default());
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }
}
