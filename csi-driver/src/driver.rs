//! What every call does, in one shape: claim, look, plan, execute. Synchronous: one call runs on one thread.

mod controller;
mod health;
mod inline;
mod node;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Capability, CapacityRange, Error, Parameters, Result, SnapshotId, VolumeId};
use crate::store::{Claim, Claims, OpenPool, Store};

pub use controller::SnapshotRequest;
pub use health::Health;
pub use inline::{InlineRequest, quantity};
pub use node::{StageRequest, TargetRequest, VolumeStats};

/// The topology key of a node. Its value is the node's name, or a digest of one that is too long for a label.
pub const TOPOLOGY_KEY: &str = "topology.trysail.dev/node";

/// Label values end at 63 characters.
const LABEL_LENGTH: usize = 63;

/// How long publishing waits for another call on the same volume.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(5);

/// The driver of one node.
#[derive(Debug)]
pub struct Driver {
    /// Its pools.
    pub store: Store,
    /// The name of the node.
    pub node: String,
    /// How many volumes the scheduler may place here; 0 leaves it to Kubernetes.
    pub max_volumes: u32,
    /// Whether an external attacher says where volumes may be used.
    pub attach: bool,
    claims: Claims,
}

/// What `GetCapacity` asks.
#[derive(Clone, Debug, Default)]
pub struct CapacityQuestion {
    /// For volumes that are used like this.
    pub capabilities: Vec<Capability>,
    /// Of this class.
    pub parameters: Parameters,
}

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapacityAnswer {
    /// In all, and for one volume.
    pub available: u64,
    /// The smallest volume.
    pub minimum: u64,
}

impl Driver {
    /// The driver of `node`.
    pub fn new(store: Store, node: String, max_volumes: u32) -> Self {
        Self { store, node, max_volumes, attach: false, claims: Claims::default() }
    }

    /// Where this node's volumes can be used.
    pub fn topology(&self) -> BTreeMap<String, String> {
        let value = if self.node.len() <= LABEL_LENGTH {
            self.node.clone()
        } else {
            // A prefix for people, and a checksum that tells apart what the prefix does not.
            format!(
                "{}-{:08x}",
                self.node[..LABEL_LENGTH - 9].trim_end_matches(['-', '.']),
                crc32c::crc32c(self.node.as_bytes())
            )
        };
        BTreeMap::from([(TOPOLOGY_KEY.to_owned(), value)])
    }

    /// Whether a topology that somebody asks for is, or contains, this node.
    pub fn is_here(&self, segments: &std::collections::HashMap<String, String>) -> bool {
        let own = self.topology();
        segments.iter().all(|(key, value)| own.get(key) == Some(value))
    }

    fn claim(&self, key: &str) -> Result<Claim<'_>> {
        self.claims.take(key, Duration::ZERO)
    }

    /// The pool of a volume that exists.
    fn pool_of(&self, id: &str) -> Result<(VolumeId, &OpenPool)> {
        let missing = || Error::NoVolume(id.to_owned());
        let id: VolumeId = id.parse().map_err(|_| missing())?;
        let pool = self.store.pool(id.pool()).ok_or_else(missing)?;
        if let Some(why) = pool.index().damaged.get(&id.to_string()) {
            return Err(Error::Precondition(format!("volume {id} is damaged: {why}")));
        }
        if pool.volume(&id).is_none() {
            return Err(missing());
        }
        Ok((id, pool))
    }

    /// The pool of a snapshot that exists.
    fn pool_of_snapshot(&self, id: &str) -> Result<(SnapshotId, &OpenPool)> {
        let missing = || Error::NoSnapshot(id.to_owned());
        let id: SnapshotId = id.parse().map_err(|_| missing())?;
        let pool = self.store.pool(id.pool()).ok_or_else(missing)?;
        if let Some(why) = pool.index().damaged.get(&id.to_string()) {
            return Err(Error::Precondition(format!("snapshot {id} is damaged: {why}")));
        }
        if !pool.index().snapshots.contains_key(&id) {
            return Err(missing());
        }
        Ok((id, pool))
    }

    /// The pool that a class names, or the first. A node without it has no space for the class.
    fn pool_for(&self, parameters: &Parameters) -> Result<&OpenPool> {
        let pools = self.store.pools();
        let found = match &parameters.pool {
            None => pools.first(),
            Some(name) => pools.iter().find(|pool| pool.name == *name),
        };
        found.ok_or_else(|| {
            let name = parameters.pool.as_deref().unwrap_or("default");
            Error::Exhausted(format!("node {:?} has no pool {name:?}", self.node))
        })
    }

    /// How large a volume of this class can be here.
    pub fn capacity(&self, question: &CapacityQuestion) -> Result<CapacityAnswer> {
        let filesystem = crate::model::capability::common_access(&question.capabilities)?;
        let (minimum, _) = crate::model::size::minimum(filesystem);
        let Ok(pool) = self.pool_for(&question.parameters) else { return Ok(CapacityAnswer::default()) };
        let supply = self.store.supply(pool)?;
        let index = pool.index();
        let lacks = question.parameters.snapshots && !index.features.reflink;
        if lacks || index.failed.is_some() {
            return Ok(CapacityAnswer::default());
        }
        let available = supply.available(&index, question.parameters.provisioning);
        // What is too small for any volume is nothing.
        let available = if available < minimum { 0 } else { available };
        Ok(CapacityAnswer { available, minimum })
    }
}

/// A size that an expansion must reach.
pub(crate) fn required(range: Option<CapacityRange>) -> Result<CapacityRange> {
    match range {
        Some(range) if range.required > 0 || range.limit > 0 => Ok(range),
        _ => Err(Error::Missing("capacity_range")),
    }
}
