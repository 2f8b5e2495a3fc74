//! The log as bytes: frames with a length and a checksum, after a line that says what the file is.
//!
//! A frame that is not whole ends the log: it is the write that a kill or a full file system cut short, and whoever
//! wrote it has not told anybody that it succeeded.

use super::record::Event;

/// First bytes of a store. The digit is the version of the format.
pub(super) const MAGIC: &[u8; 8] = b"TSCNI-1\n";
/// Length and checksum, both little endian.
const FRAME_HEADER: usize = 8;
/// Far above any event: a length beyond it is no length.
const MAX_EVENT: usize = 1 << 20;

/// Why bytes are no log.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    /// The file belongs to another program or version.
    #[error("it does not start like a store of this program")]
    Foreign,
    /// A whole frame holds something unknown: a later version wrote it.
    #[error("the event at byte {at} is unknown: {error}")]
    Unknown {
        /// Position of its frame.
        at: usize,
        /// Why.
        error: String,
    },
}

/// One event as a frame.
pub(super) fn frame(event: &Event) -> Result<Vec<u8>, serde_json::Error> {
    let payload = serde_json::to_vec(event)?;
    let mut bytes = Vec::with_capacity(FRAME_HEADER + payload.len());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(crc32c::crc32c(&payload).to_le_bytes());
    bytes.extend(payload);
    Ok(bytes)
}

/// Position and payload.
type Frame<'a> = (usize, &'a [u8]);

/// Payloads of the whole frames, and how many bytes of the file they and the header take.
pub(super) fn frames(bytes: &[u8]) -> Result<(Vec<Frame<'_>>, usize), LogError> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        // A header that was cut short belongs to a store that holds nothing yet.
        return if MAGIC.starts_with(bytes) { Ok((Vec::new(), 0)) } else { Err(LogError::Foreign) };
    };
    let mut found = Vec::new();
    let mut at = MAGIC.len();
    let mut rest = rest;
    while let Some((payload, after)) = first_frame(rest) {
        found.push((at, payload));
        at += FRAME_HEADER + payload.len();
        rest = after;
    }
    Ok((found, at))
}

fn first_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > MAX_EVENT {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(length)?;
    (crc32c::crc32c(payload) == u32::from_le_bytes(*checksum)).then_some((payload, rest))
}

/// All events, and the length of the part of the file that holds them.
pub(super) fn events(bytes: &[u8]) -> Result<(Vec<Event>, usize), LogError> {
    let (frames, length) = frames(bytes)?;
    let parse = |(at, payload): (usize, &[u8])| {
        serde_json::from_slice(payload).map_err(|error| LogError::Unknown { at, error: error.to_string() })
    };
    Ok((frames.into_iter().map(parse).collect::<Result<_, _>>()?, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::Key;

    fn event(id: &str) -> Event {
        Event::Commit(Key { network: "n".into(), container_id: id.into(), ifname: "eth0".into() })
    }

    fn log(events: &[Event]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for event in events {
            bytes.extend(frame(event).unwrap());
        }
        bytes
    }

    /// Whatever is cut off, what was whole is kept, and the cut is found.
    #[test]
    fn every_cut_leaves_the_whole_events() {
        let all = [event("a"), event("bb"), event("ccc")];
        let bytes = log(&all);
        let ends: Vec<usize> = (0..=all.len()).map(|count| log(&all[..count]).len()).collect();
        for cut in 0..=bytes.len() {
            let (read, length) = events(&bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
            assert_eq!(read, all[..whole], "cut at {cut}");
            assert_eq!(length, if cut < MAGIC.len() { 0 } else { ends[whole] }, "cut at {cut}");
        }
    }

    /// A changed bit is never taken for an event.
    #[test]
    fn a_flipped_bit_ends_the_log_before_it() {
        let all = [event("a"), event("b")];
        let bytes = log(&all);
        let first_end = log(&all[..1]).len();
        for bit in first_end * 8..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(events(&changed).unwrap(), (all[..1].to_vec(), first_end), "bit {bit}");
        }
    }

    #[test]
    fn foreign_files_are_refused() {
        assert_eq!(events(b"{\"json\":1}").unwrap_err(), LogError::Foreign);
        let mut newer = MAGIC.to_vec();
        let payload = br#"{"teleport":{}}"#;
        newer.extend((payload.len() as u32).to_le_bytes());
        newer.extend(crc32c::crc32c(payload).to_le_bytes());
        newer.extend(payload);
        assert!(matches!(events(&newer).unwrap_err(), LogError::Unknown { at: 8, .. }));
    }
}
