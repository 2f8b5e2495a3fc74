//! Inline ephemeral volumes: a pod names the driver instead of a claim, and the volume lives and dies with the pod. The
//! kubelet stages no such volume and makes up its id, so one call creates, formats and mounts, and another undoes all.

use std::path::Path;

use crate::model::{AccessType, Capability, Error, Parameters, Result, VolumeRecord};
use crate::plan::{Effect, Plan, Wanted};
use crate::store::Subject;

use super::{Driver, StageRequest};

/// Names of such volumes begin so. No sidecar gives such a name.
const PREFIX: &str = "inline ";

/// `NodePublishVolume` of an inline volume.
#[derive(Clone, Debug)]
pub struct InlineRequest {
    /// The kubelet's id.
    pub id: String,
    /// Where it is to appear.
    pub target: std::path::PathBuf,
    /// How.
    pub capability: Capability,
    /// Whether the pod may not write.
    pub readonly: bool,
    /// Its size, if the pod says one.
    pub size: Option<u64>,
    /// What a class would say.
    pub parameters: Parameters,
}

impl Driver {
    /// Creates and mounts.
    pub fn publish_inline(&self, request: &InlineRequest) -> Result<()> {
        let AccessType::Mount { fs, options } = &request.capability.access else {
            return Err(Error::invalid("volume_capability", "an inline volume is a directory"));
        };
        let range = crate::model::CapacityRange { required: request.size.unwrap_or(0), limit: 0 };
        let wanted = Wanted {
            name: format!("{PREFIX}{}", request.id),
            range,
            block: false,
            fs: *fs,
            parameters: request.parameters.clone(),
            source: None,
        };
        let record = self.create_volume(&wanted)?;
        let mut options = options.clone();
        options.extend(request.readonly.then(|| "ro".to_owned()));
        let capability =
            Capability { access: AccessType::Mount { fs: *fs, options }, mode: request.capability.mode };
        let id = record.id.to_string();
        let stage = StageRequest { id: id.clone(), path: request.target.clone(), capability };
        self.stage(&stage).or_else(|error| {
            // The kubelet forgets a volume whose mount failed for good.
            self.delete_volume(&id)?;
            Err(error)
        })
    }

    /// Unmounts and deletes; false if there is no such volume.
    pub(super) fn unpublish_inline(&self, id: &str, target: &Path) -> Result<bool> {
        let name = format!("{PREFIX}{id}");
        let found = |pool: &crate::store::OpenPool| -> Option<VolumeRecord> {
            pool.index().volume_named(&name).cloned()
        };
        let Some(record) = self.store.pools().iter().find_map(found) else { return Ok(false) };
        let id = record.id.to_string();
        self.unstage(&id, target)?;
        let (parsed, pool) = self.pool_of(&id)?;
        let remove = Effect::RemoveTarget { path: target.to_owned() };
        self.store.run(pool, Subject::Volume(&parsed), &Plan { steps: vec![remove], ..Plan::default() })?;
        self.delete_volume(&id)?;
        Ok(true)
    }
}

/// `10Gi`, `500M`, `1073741824`: what users of Kubernetes write for bytes, whole ones.
pub fn quantity(text: &str) -> Result<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor: Option<u64> = match suffix {
        "" => Some(1),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1 << 30),
        "Ti" => Some(1 << 40),
        "k" => Some(1_000),
        "M" => Some(1_000_000),
        "G" => Some(1_000_000_000),
        "T" => Some(1_000_000_000_000),
        _ => None,
    };
    factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor)).ok_or_else(|| {
        Error::invalid("volume_context.size", format!("{text:?} is no size: say for example 1Gi"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        assert_eq!(quantity("1Gi"), Ok(1 << 30));
        assert_eq!(quantity("500M"), Ok(500_000_000));
        assert_eq!(quantity("4096"), Ok(4096));
        for bad in ["", "Gi", "1.5Gi", "-1", "1GiB", "99999999999Ti"] {
            assert!(quantity(bad).is_err(), "{bad}");
        }
    }
}
