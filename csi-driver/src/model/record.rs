//! The records on disk: versioned, checksummed, and the same bytes for the same content.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::PathBuf;
use uuid::Uuid;

use super::{
    AccessType, Capability, CapacityRange, Error, Filesystem, Parameters, PoolId, Result, SnapshotId,
    VolumeId,
};

/// The version of the format that this program writes, and the highest that it reads.
pub const FORMAT: u32 = 1;

/// `pool.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Marker {
    /// The identity of the pool: it goes where the disk goes.
    pub uuid: Uuid,
    /// When the pool was made.
    pub created: Timestamp,
}

impl Marker {
    /// The pool's id in the ids of its volumes.
    pub fn id(&self) -> PoolId {
        PoolId::of(self.uuid)
    }
}

/// What `CreateVolume` asked for: the part that a repeated call must agree with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeSpec {
    /// The caller's name for it: the key of idempotency.
    pub name: String,
    /// The sizes that satisfy the caller.
    pub range: CapacityRange,
    /// What it holds: a filesystem, or none for a block volume.
    pub filesystem: Option<Filesystem>,
    /// What its class says.
    pub parameters: Parameters,
    /// What it starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// What a volume starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Source {
    /// A snapshot.
    Snapshot(SnapshotId),
    /// Another volume, as it is at that moment.
    Volume(VolumeId),
}

/// What the data of a volume is. A volume is formatted because of what stands here and never because of what a probe
/// finds: a probe that fails, or comes too early, would make us format somebody's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state", deny_unknown_fields)]
pub enum Content {
    /// A block volume: not ours to read.
    Raw,
    /// Nothing that anybody wrote; to be formatted when it is first staged.
    Blank,
    /// A filesystem that must never be made again.
    #[serde(rename_all = "camelCase")]
    Formatted {
        /// Its UUID, or that of the source it was cloned from.
        uuid: Uuid,
        /// The size of the device when it was made or last grown.
        grown_to: u64,
    },
}

/// `vol/ID/meta.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeRecord {
    /// Its identity; also the name of its directory.
    pub id: VolumeId,
    /// What was asked for.
    pub spec: VolumeSpec,
    /// Bytes of the backing file.
    pub size: u64,
    /// The size that an expansion has promised and not yet reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_target: Option<u64>,
    /// What the data is.
    pub content: Content,
    /// Whether the backing file is written in place (btrfs); a clone must agree with its source.
    #[serde(default)]
    pub nocow: bool,
    /// How the external attacher has it attached, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<Published>,
    /// When it was made.
    pub created: Timestamp,
}

/// `snap/ID/meta.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotRecord {
    /// Its identity; also the name of its directory.
    pub id: SnapshotId,
    /// The caller's name for it.
    pub name: String,
    /// The volume it was cut from, which may be gone by now.
    pub source: VolumeId,
    /// Bytes of the volume at that moment.
    pub size: u64,
    /// The filesystem of the volume.
    pub filesystem: Option<Filesystem>,
    /// What its data is.
    pub content: Content,
    /// Whether its file is written in place (btrfs).
    #[serde(default)]
    pub nocow: bool,
    /// When it was cut.
    pub created: Timestamp,
}

/// `run/ID.json`: what this node has done with a volume. Written before it is done, removed after it is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunRecord {
    /// The volume.
    pub volume: VolumeId,
    /// The boot in which it happened: after another one, no mount and no loop device of it exists.
    pub boot_id: String,
    /// The path that it is staged at.
    pub staging: PathBuf,
    /// How it is staged.
    pub capability: Capability,
    /// Where it is published.
    pub published: BTreeMap<PathBuf, Published>,
}

/// One target path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Published {
    /// Whether the pod may not write.
    pub readonly: bool,
    /// How it is published.
    pub capability: Capability,
}

impl RunRecord {
    /// Whether the volume is staged as a block device.
    pub fn is_block(&self) -> bool {
        self.capability.access == AccessType::Block
    }
}

/// Why the bytes of a record are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not the form of a record: cut short, or written over.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The form is right and the content is not what was written.
    #[error("its checksum does not match")]
    Checksum,
    /// Written by a newer version of this program.
    #[error("its format is {0} and this program knows up to {FORMAT}: use the newer program")]
    Newer(u32),
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    format: u32,
    crc32c: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Enough of any version of an envelope to see which it is.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

fn checksum(body: &str) -> String {
    format!("{:08x}", crc32c::crc32c(body.as_bytes()))
}

/// The bytes of a record.
pub fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    let failed = |error| Error::Effect(format!("a record cannot be encoded: {error}"));
    let body = serde_json::value::to_raw_value(record).map_err(failed)?;
    let envelope = Envelope { format: FORMAT, crc32c: checksum(body.get()), body: &body };
    let mut bytes = serde_json::to_vec(&envelope).map_err(failed)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The record in these bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Damage> {
    let unreadable = |error: serde_json::Error| Damage::Unreadable(error.to_string());
    let envelope: Envelope<'_> = match serde_json::from_slice(bytes) {
        Ok(envelope) => envelope,
        Err(error) => match serde_json::from_slice::<AnyFormat>(bytes) {
            Ok(newer) if newer.format > FORMAT => return Err(Damage::Newer(newer.format)),
            _ => return Err(unreadable(error)),
        },
    };
    if envelope.format > FORMAT {
        return Err(Damage::Newer(envelope.format));
    }
    // The newline at the end is part of what was written: without it the file was cut short.
    if checksum(envelope.body.get()) != envelope.crc32c || bytes.last() != Some(&b'\n') {
        return Err(Damage::Checksum);
    }
    serde_json::from_str(envelope.body.get()).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Provisioning;

    fn record() -> VolumeRecord {
        let pool = PoolId::of(Uuid::from_u128(5));
        VolumeRecord {
            id: VolumeId::new(&pool, 1, 2),
            spec: VolumeSpec {
                name: "pvc-1".to_owned(),
                range: CapacityRange { required: 1 << 30, limit: 0 },
                filesystem: Some(Filesystem::Ext4),
                parameters: Parameters { provisioning: Provisioning::Thick, ..Parameters::default() },
                source: Some(Source::Snapshot(SnapshotId::new(&pool, 3, 4))),
            },
            size: 1 << 30,
            size_target: None,
            content: Content::Formatted { uuid: Uuid::from_u128(6), grown_to: 7 },
            nocow: false,
            attached: None,
            created: Timestamp::UNIX_EPOCH,
        }
    }

    /// Disks outlive programs: what this version writes, later ones must read.
    #[test]
    fn the_bytes() {
        let bytes = encode(&record()).unwrap();
        insta::assert_snapshot!(String::from_utf8(bytes.clone()).unwrap());
        assert_eq!(decode(&bytes), Ok(record()));
    }

    /// A record that was cut short anywhere, or in which any bit flipped, is noticed and never read as another record.
    #[test]
    fn damage_is_noticed_at_every_byte() {
        let bytes = encode(&record()).unwrap();
        for length in 0..bytes.len() {
            assert!(decode::<VolumeRecord>(&bytes[..length]).is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let read = decode::<VolumeRecord>(&damaged);
                assert!(read.is_err() || read == Ok(record()), "bit {bit} of byte {at}");
            }
        }
    }

    /// A newer program may have written what this one would misread, so it must not guess.
    #[test]
    fn a_newer_format_is_refused_by_number() {
        let text = r#"{"format":2,"something":"else"}"#;
        assert_eq!(decode::<VolumeRecord>(text.as_bytes()), Err(Damage::Newer(2)));
    }
}
