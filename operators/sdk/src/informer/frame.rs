//! From bytes to events: lines of a watch, items of a list.
//!
//! A line is decoded in one pass straight into the type that is kept; what the type does not read is skipped. An
//! object that cannot be decoded costs a second pass, which finds out whose it is.

use std::{borrow::Cow, marker::PhantomData};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use trysail_core::{Key, Meta};

use crate::client::Status;

/// One line of a watch.
#[derive(Debug)]
pub(super) enum Frame<T> {
    /// ADDED or MODIFIED.
    Applied(T),
    /// DELETED: what the object was last.
    Deleted(T),
    /// BOOKMARK.
    Bookmark(Bookmark),
    /// ERROR: the watch is over.
    Error(Status),
    /// An object that cannot be decoded.
    Unreadable { deleted: bool, object: Unreadable },
    /// A type that this program does not know.
    Unknown,
}

/// The progress that a bookmark reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bookmark {
    /// Everything up to here has been sent.
    pub(super) version: u64,
    /// The initial events of a streaming list are complete.
    pub(super) initial_events_end: bool,
}

/// What could be read of an object that cannot be decoded.
#[derive(Debug, Clone)]
pub(super) struct Unreadable {
    pub(super) key: Option<Key>,
    pub(super) version: u64,
    pub(super) error: String,
}

/// Decodes one line. The error means that the line is no watch event at all.
pub(super) fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<Frame<T>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    match deserializer.deserialize_map(Fast(PhantomData)) {
        Ok(frame) => Ok(frame),
        Err(_) => decode_slowly(line),
    }
}

/// Decodes one item of a list.
pub(super) fn decode_object<T: DeserializeOwned>(json: &str) -> Result<T, Unreadable> {
    serde_json::from_str(json).map_err(|error| unreadable(json, &error))
}

/// One page of a list, its items unparsed.
#[derive(Deserialize)]
pub(super) struct Page<'a> {
    pub(super) metadata: PageMeta,
    #[serde(borrow, default)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

/// `metav1.ListMeta`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMeta {
    #[serde(default, deserialize_with = "version")]
    pub(super) resource_version: u64,
    #[serde(default, rename = "continue")]
    pub(super) next: String,
}

/// The API server writes `type` before `object`; then the object can be decoded on the spot. Anything else is
/// left to [`decode_slowly`].
struct Fast<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for Fast<T> {
    type Value = Frame<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a watch event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Frame<T>, A::Error> {
        let unusual = || de::Error::custom("not written as the API server writes it");
        let Some("type") = map.next_key::<&str>()? else { return Err(unusual()) };
        let kind = map.next_value::<Kind>()?;
        let Some("object") = map.next_key::<&str>()? else { return Err(unusual()) };
        let frame = match kind {
            Kind::Added | Kind::Modified => Frame::Applied(map.next_value()?),
            Kind::Deleted => Frame::Deleted(map.next_value()?),
            Kind::Bookmark => Frame::Bookmark(map.next_value()?),
            Kind::Error => Frame::Error(map.next_value()?),
            Kind::Other => return Err(unusual()),
        };
        match map.next_key::<&str>()? {
            None => Ok(frame),
            Some(_) => Err(unusual()),
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
    #[serde(other)]
    Other,
}

fn decode_slowly<T: DeserializeOwned>(line: &[u8]) -> Result<Frame<T>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Slow<'a> {
        #[serde(rename = "type")]
        kind: Kind,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let Slow { kind, object } = serde_json::from_slice(line)?;
    let json = object.get();
    Ok(match kind {
        Kind::Bookmark => Frame::Bookmark(serde_json::from_str(json)?),
        Kind::Error => Frame::Error(serde_json::from_str(json)?),
        Kind::Other => Frame::Unknown,
        Kind::Added | Kind::Modified => match decode_object(json) {
            Ok(object) => Frame::Applied(object),
            Err(object) => Frame::Unreadable { deleted: false, object },
        },
        Kind::Deleted => match decode_object(json) {
            Ok(object) => Frame::Deleted(object),
            Err(object) => Frame::Unreadable { deleted: true, object },
        },
    })
}

fn unreadable(json: &str, error: &serde_json::Error) -> Unreadable {
    #[derive(Deserialize)]
    struct Named {
        metadata: Meta,
    }
    let named = serde_json::from_str::<Named>(json).ok();
    let version = named.as_ref().map_or(0, |named| named.metadata.resource_version);
    Unreadable { key: named.map(|named| named.metadata.key), version, error: error.to_string() }
}

impl<'de> Deserialize<'de> for Bookmark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            #[serde(deserialize_with = "version")]
            resource_version: u64,
            #[serde(default)]
            annotations: Option<Annotations>,
        }
        #[derive(Deserialize)]
        struct Annotations {
            #[serde(default, rename = "k8s.io/initial-events-end")]
            end: Option<String>,
        }
        let Wire { metadata } = Wire::deserialize(deserializer)?;
        let end = metadata.annotations.and_then(|annotations| annotations.end);
        Ok(Self { version: metadata.resource_version, initial_events_end: end.as_deref() == Some("true") })
    }
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(|_| de::Error::custom(format!("resourceVersion {text:?} is not a number")))
}

/// Cuts a body into lines as it arrives.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
}

/// etcd holds no object above 1.5 MB by default, and JSON is at most a few times its protobuf.
const LONGEST_LINE: usize = 64 << 20;

/// A line that does not end.
#[derive(Debug, thiserror::Error)]
#[error("a line of the watch is longer than {LONGEST_LINE} bytes")]
pub(super) struct EndlessLine;

impl Lines {
    /// Hands every line that `chunk` completes to `line`, until one of them asks to stop.
    pub(super) fn feed<E: From<EndlessLine>>(
        &mut self,
        chunk: &Bytes,
        mut line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest: &[u8] = chunk;
        if !self.partial.is_empty() {
            let Some(end) = memchr::memchr(b'\n', rest) else { return Ok(self.keep(rest)?) };
            self.partial.extend_from_slice(&rest[..end]);
            let whole = std::mem::take(&mut self.partial);
            rest = &rest[end + 1..];
            line(&whole)?;
        }
        while let Some(end) = memchr::memchr(b'\n', rest) {
            if end > 0 {
                line(&rest[..end])?;
            }
            rest = &rest[end + 1..];
        }
        Ok(self.keep(rest)?)
    }

    fn keep(&mut self, rest: &[u8]) -> Result<(), EndlessLine> {
        if self.partial.len() + rest.len() > LONGEST_LINE {
            return Err(EndlessLine);
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trysail_core::pod::Pod;

    const POD: &str = r#"{"metadata":{"name":"p","namespace":"n","resourceVersion":"7"}}"#;

    fn line(kind: &str, object: &str) -> Frame<Pod> {
        decode(format!(r#"{{"type":"{kind}","object":{object}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn every_type_is_told_apart() {
        assert!(matches!(line("ADDED", POD), Frame::Applied(pod) if pod.meta.resource_version == 7));
        assert!(matches!(line("MODIFIED", POD), Frame::Applied(_)));
        assert!(matches!(line("DELETED", POD), Frame::Deleted(_)));
        assert!(matches!(line("RENAMED", POD), Frame::Unknown));
        let gone = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#;
        assert!(matches!(line("ERROR", gone), Frame::Error(status) if status.code == 410));
        let bookmark = r#"{"kind":"Pod","metadata":{"resourceVersion":"12746","creationTimestamp":null}}"#;
        let expected = Bookmark { version: 12746, initial_events_end: false };
        assert!(matches!(line("BOOKMARK", bookmark), Frame::Bookmark(found) if found == expected));
        let end =
            r#"{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}"#;
        assert!(matches!(line("BOOKMARK", end), Frame::Bookmark(found) if found.initial_events_end));
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        let frame = decode::<Pod>(format!(r#"{{"object":{POD},"type":"ADDED"}}"#).as_bytes()).unwrap();
        assert!(matches!(frame, Frame::Applied(_)));
    }

    #[test]
    fn an_object_that_cannot_be_decoded_is_named() {
        let bad =
            r#"{"metadata":{"name":"p","namespace":"n","resourceVersion":"7"},"spec":{"nodeName":[1]}}"#;
        let Frame::Unreadable { deleted: false, object } = line("ADDED", bad) else { panic!("decoded") };
        assert_eq!((object.key, object.version), (Some(Key::new("n", "p")), 7));
        assert!(decode::<Pod>(b"<html>").is_err());
    }

    /// A frame may arrive in any pieces: every way to cut a text gives the same lines.
    #[test]
    fn lines_do_not_depend_on_chunks() {
        let text = b"one\ntwo\n\nthree\nfour".as_slice();
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for chunk in text.chunks(size) {
                let chunk = Bytes::copy_from_slice(chunk);
                lines
                    .feed(&chunk, |line| {
                        found.push(String::from_utf8_lossy(line).into_owned());
                        Ok::<_, EndlessLine>(())
                    })
                    .unwrap();
            }
            assert_eq!(found, ["one", "two", "three"], "chunks of {size}");
        }
    }
}
