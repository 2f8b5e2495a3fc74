//! One netlink socket: framing, sequence numbers, and errors in the kernel's own words.

use std::fmt;
use std::io;

use netlink_sys::constants::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

use crate::spec::{CniError, Code};

/// Protocol of rtnetlink.
pub(super) const ROUTE: isize = NETLINK_ROUTE;
/// Protocol of nf_tables.
pub(crate) const NETFILTER: isize = NETLINK_NETFILTER;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_ACK_TLVS: u16 = 0x200;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_DUMP: u16 = 0x300;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Length, type, flags, sequence number, port.
pub(crate) const HEADER: usize = 16;
/// The attribute of an error that holds a sentence.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Messages of a dump come in pieces of up to 32 KiB.
const RECEIVE: usize = 64 * 1024;

/// What the kernel refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetlinkError {
    /// What was asked for.
    pub what: String,
    /// The kernel's number.
    pub errno: Errno,
    /// The kernel's sentence, when it has one.
    pub said: Option<String>,
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.what, self.errno.desc())?;
        match &self.said {
            Some(said) => write!(f, " ({said})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for NetlinkError {}

impl From<NetlinkError> for CniError {
    fn from(error: NetlinkError) -> Self {
        let (code, remedy) = match error.errno {
            Errno::EPERM | Errno::EACCES => {
                (Code::NotPermitted, "the plugin needs CAP_NET_ADMIN and CAP_SYS_ADMIN")
            }
            Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT => {
                (Code::Kernel, "the kernel lacks a feature that is needed")
            }
            _ => (Code::Kernel, ""),
        };
        Self::new(code, error.to_string()).details(remedy)
    }
}

impl NetlinkError {
    pub(crate) fn new(what: impl Into<String>, errno: Errno) -> Self {
        Self { what: what.into(), errno, said: None }
    }

    pub(crate) fn io(what: impl Into<String>, error: &io::Error) -> Self {
        Self::new(what, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}

/// An answer: its type and what follows the header.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: Vec<u8>,
}

/// A socket in the network namespace in which it was opened, wherever the thread goes afterwards.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: Socket,
    sequence: u32,
}

impl Channel {
    pub(crate) fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let failed = |error: io::Error| NetlinkError::io("open a netlink socket", &error);
        let mut socket = Socket::new(protocol).map_err(failed)?;
        // Sentences with errors, and no copy of the request.
        socket.set_ext_ack(true).map_err(failed)?;
        socket.set_cap_ack(true).map_err(failed)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// One request, its answers up to the acknowledgement or the end of the dump. `None`: the dump was interrupted by
    /// a change and may be incomplete.
    pub(crate) fn request(
        &mut self,
        what: &str,
        (kind, flags): (u16, u16),
        body: &[u8],
    ) -> Result<Option<Vec<Message>>, NetlinkError> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        push_message(&mut bytes, (kind, flags | NLM_F_REQUEST | NLM_F_ACK), sequence, body);
        self.send(what, &bytes)?;
        let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let (mut answers, mut whole) = (Vec::new(), true);
        loop {
            for message in self.receive(what)? {
                if message.sequence != sequence {
                    continue;
                }
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_ERROR => return outcome(what, &message).map(|()| Some(answers)),
                    NLMSG_DONE if dump => return Ok(whole.then_some(answers)),
                    NLMSG_DONE => {}
                    _ => answers.push(message),
                }
            }
        }
    }

    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    pub(crate) fn send(&self, what: &str, bytes: &[u8]) -> Result<(), NetlinkError> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::io(what, &error)),
            }
        }
    }

    pub(crate) fn receive(&self, what: &str) -> Result<Vec<Message>, NetlinkError> {
        let mut buffer: Vec<u8> = Vec::with_capacity(RECEIVE);
        loop {
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::io(what, &error)),
            }
        }
        Ok(split(&buffer))
    }
}

/// Whether an NLMSG_ERROR is an acknowledgement.
pub(crate) fn outcome(what: &str, message: &Message) -> Result<(), NetlinkError> {
    let code = message.body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 {
        return Ok(());
    }
    // After the code comes the header of the request, and then attributes.
    let attributes = message.body.get(4 + HEADER..).filter(|_| message.flags & NLM_F_ACK_TLVS != 0);
    let said = attributes.and_then(|bytes| {
        let (_, text) = Attributes(bytes).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
        Some(text_of(text))
    });
    Err(NetlinkError { what: what.to_owned(), errno: Errno::from_raw(-code), said })
}

/// Whether a message carries an error or acknowledgement.
pub(crate) fn is_outcome(message: &Message) -> bool {
    message.kind == NLMSG_ERROR
}

/// Appends one message.
pub(crate) fn push_message(bytes: &mut Vec<u8>, (kind, flags): (u16, u16), sequence: u32, body: &[u8]) {
    bytes.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn split(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = word(0) as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        messages.push(Message { kind: half(4), flags: half(6), sequence: word(8), body: body.to_vec() });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// The attributes in these bytes; stops at the first that is not whole. Flags of the type are masked.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = self.0.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A text attribute, without its terminating zero.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as the kernel sends them: an error with a sentence after the capped request.
    #[test]
    fn an_error_carries_the_kernels_sentence() {
        let mut body = (-17_i32).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        body.extend([10, 0, 1, 0]);
        body.extend(b"taken\0\0\0");
        let mut bytes = Vec::new();
        push_message(&mut bytes, (NLMSG_ERROR, NLM_F_ACK_TLVS), 7, &body);
        let messages = split(&bytes);
        assert_eq!((messages.len(), messages[0].sequence), (1, 7));
        let error = outcome("make a link", &messages[0]).unwrap_err();
        assert_eq!(error.to_string(), "failed to make a link: File exists (taken)");
    }

    /// What is cut short ends the list instead of the process.
    #[test]
    fn torn_bytes_are_no_panic() {
        let mut bytes = Vec::new();
        push_message(&mut bytes, (16, 0), 1, &[1, 2, 3]);
        for cut in 0..bytes.len() {
            assert!(split(&bytes[..cut]).len() <= 1);
        }
        for bad in [&[0_u8, 0, 0, 0][..], &[3, 0, 1, 0], &[9, 0, 1, 0, 1]] {
            assert_eq!(Attributes(bad).count(), 0, "{bad:?}");
        }
    }
}
