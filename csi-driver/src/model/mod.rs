//! What volumes, snapshots and pools are: types and rules without effects, clock or randomness.

pub mod capability;
pub mod capacity;
pub mod error;
pub mod filesystem;
pub mod ids;
pub mod layout;
pub mod parameters;
pub mod pool;
pub mod record;
pub mod size;

pub use capability::{AccessMode, AccessType, Capability};
pub use capacity::{Space, Usage};
pub use error::{Error, Result};
pub use filesystem::Filesystem;
pub use ids::{PoolId, SnapshotId, VolumeId};
pub use layout::Layout;
pub use parameters::{Parameters, Provisioning};
pub use pool::{Features, Pool, PoolSettings};
pub use record::{Content, Published, RunRecord, SnapshotRecord, Source, VolumeRecord, VolumeSpec};
pub use size::CapacityRange;
