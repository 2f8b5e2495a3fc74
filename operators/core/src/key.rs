//! What identifies an object: its key (namespace and name) and its uid (one incarnation of that key).

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Symbol;

/// Namespace and name. Two incarnations of an object share a key; see [`Uid`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped objects.
    pub namespace: Symbol,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: impl Into<Symbol>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One incarnation of an object: deleted and created again under the same name, it has another uid.
///
/// The API server hands out UUIDs, kept here in 16 bytes; anything else is kept as it came, because a
/// precondition must quote it to the letter.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Uuid([u8; 16]),
    Other(Arc<str>),
}

impl Uid {
    /// The bytes that identify this incarnation, for hashing.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Uuid(bytes) => bytes,
            Repr::Other(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Uid(parse_uuid(text).map_or_else(|| Repr::Other(Arc::from(text)), Repr::Uuid))
    }
}

impl FromStr for Uid {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::from(text))
    }
}

/// Only the canonical lower-case form is packed: any other spelling could not be given back to the letter.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut packed = [0u8; 16];
    let mut nibble = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if DASHES.contains(&at) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        packed[nibble / 2] |= value << if nibble % 2 == 0 { 4 } else { 0 };
        nibble += 1;
    }
    Some(packed)
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Other(text) => f.write_str(text),
            Repr::Uuid(bytes) => {
                for (at, byte) in bytes.iter().enumerate() {
                    if matches!(at, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Uid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self::from(text.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A precondition must quote the uid exactly as the server wrote it, whatever its form.
    #[test]
    fn uid_is_given_back_to_the_letter() {
        for text in [
            "0b6e6d9c-3c61-4d50-8a50-3f2f6a4e7d11",
            "0B6E6D9C-3C61-4D50-8A50-3F2F6A4E7D11",
            "0b6e6d9c+3c61-4d50-8a50-3f2f6a4e7d11",
            "test-uid",
            "",
        ] {
            assert_eq!(Uid::from(text).to_string(), text);
        }
    }

    #[test]
    fn uid_fits_in_24_bytes() {
        assert!(size_of::<Uid>() <= 24);
    }
}
