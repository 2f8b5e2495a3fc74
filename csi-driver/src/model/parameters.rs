//! `parameters` of a StorageClass or VolumeSnapshotClass. Unknown ones are refused by name: a misspelt one would
//! otherwise silently mean the default.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// Whether space is taken when the volume is made or when it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provisioning {
    /// When it is written; discarded blocks are given back.
    #[default]
    Thin,
    /// All of it at once, and it stays: a write never fails for lack of space.
    Thick,
}

/// What a class says about volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// `pool`: its name; none means the node's default pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// `provisioning`: thin or thick.
    pub provisioning: Provisioning,
    /// `snapshots: "true"`: the volume must be able to have snapshots.
    #[serde(default)]
    pub snapshots: bool,
}

/// What the sidecars add (`--extra-create-metadata`) or leave in: names for people, never identity.
const FROM_SIDECARS: &str = "csi.storage.k8s.io/";

impl Parameters {
    /// Of a StorageClass.
    pub fn of_class(map: &HashMap<String, String>) -> Result<Self> {
        let mut parameters = Self::default();
        // In order, so that one request always gets the same answer.
        for (key, value) in map.iter().collect::<BTreeMap<_, _>>() {
            match key.as_str() {
                "pool" if !value.is_empty() => parameters.pool = Some(value.clone()),
                "pool" => {
                    return Err(Error::invalid("parameters.pool", "is empty: name a pool or leave it out"));
                }
                "provisioning" => parameters.provisioning = provisioning(value)?,
                "snapshots" => parameters.snapshots = boolean("parameters.snapshots", value)?,
                key if key.starts_with(FROM_SIDECARS) => {}
                key => {
                    return Err(Error::invalid(
                        "parameters",
                        format!("{key:?} is unknown; known are pool, provisioning, snapshots"),
                    ));
                }
            }
        }
        Ok(parameters)
    }
}

fn provisioning(value: &str) -> Result<Provisioning> {
    match value {
        "thin" => Ok(Provisioning::Thin),
        "thick" => Ok(Provisioning::Thick),
        _ => Err(Error::invalid("parameters.provisioning", format!("{value:?}: say thin or thick"))),
    }
}

fn boolean(field: &'static str, value: &str) -> Result<bool> {
    value.parse().map_err(|_| Error::invalid(field, format!("{value:?}: say \"true\" or \"false\"")))
}

/// Of a VolumeSnapshotClass: there are none yet.
pub fn of_snapshot_class<S: BuildHasher>(map: &HashMap<String, String, S>) -> Result<()> {
    match map.keys().filter(|key| !key.starts_with(FROM_SIDECARS)).min() {
        Some(key) => Err(Error::invalid("parameters", format!("{key:?} is unknown; a snapshot has none"))),
        None => Ok(()),
    }
}

/// `mutable_parameters` of a VolumeAttributesClass: there are none yet.
pub fn mutable<S: BuildHasher>(map: &HashMap<String, String, S>) -> Result<()> {
    match map.keys().min() {
        Some(key) => Err(Error::invalid("mutable_parameters", format!("{key:?} is unknown; there are none"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Parameters> {
        Parameters::of_class(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn known_and_unknown() {
        assert_eq!(parse(&[("csi.storage.k8s.io/pvc/name", "x")]), Ok(Parameters::default()));
        assert_eq!(parse(&[("provisioning", "thick")]).unwrap().provisioning, Provisioning::Thick);
        for bad in [("provisoning", "thick"), ("provisioning", "Thick"), ("pool", ""), ("snapshots", "yes")] {
            let message = parse(&[bad]).unwrap_err().to_string();
            assert!(message.contains(bad.0), "{message}");
        }
    }
}
