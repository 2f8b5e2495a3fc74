//! The pools of this node: opening, looking, executing. The truth is on disk; the index in memory follows what was
//! executed, and is read anew after anything failed.

mod claims;
mod open;
mod scan;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::capacity::Supply;
use crate::model::pool::Change;
use crate::model::{
    Error, Layout, Pool, PoolId, Provisioning, Result, SnapshotId, VolumeId, VolumeRecord, layout, record,
};
use crate::plan::{LoopDevice, Mount, Plan, View};
use crate::sys::{DirIdentity, System, execute};

pub use claims::{Claim, Claims};
pub use open::{Opened, PoolConfig};
pub use scan::{Report, inspect};

/// All pools of this node.
#[derive(Debug)]
pub struct Store {
    system: Arc<dyn System>,
    boot_id: String,
    pools: Vec<OpenPool>,
}

/// One pool that this process serves.
pub struct OpenPool {
    /// The administrator's name for it.
    pub name: String,
    /// Its identity.
    pub id: PoolId,
    /// Its paths.
    pub layout: Layout,
    identity: DirIdentity,
    index: Mutex<Pool>,
    /// Virtual bytes of calls that are under way, by the name of what they make.
    in_flight: Mutex<BTreeMap<String, u64>>,
    _lock: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for OpenPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenPool").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}

/// What the kernel shows of one volume.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The loop devices that have its image.
    pub loops: Vec<LoopDevice>,
    /// Every mount.
    pub mounts: Vec<Mount>,
}

impl Look {
    /// Together with what the pool says.
    pub fn view<'a>(&'a self, store: &'a Store, pool: &'a Pool, volume: &'a VolumeRecord) -> View<'a> {
        View {
            layout: &pool.layout,
            volume,
            run: pool.runs.get(&volume.id),
            loops: self.loops.clone(),
            mounts: &self.mounts,
            boot_id: &store.boot_id,
        }
    }
}

/// Whose record a plan writes.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A volume.
    Volume(&'a VolumeId),
    /// A snapshot.
    Snapshot(&'a SnapshotId),
}

impl Store {
    /// Opens every pool, and repairs what has to be repaired.
    pub fn open(system: Arc<dyn System>, configs: &[PoolConfig]) -> Result<(Self, Vec<Opened>)> {
        let boot_id = system.boot_id().map_err(|error| look_failed("the boot id", &error))?;
        let mut pools = Vec::new();
        let mut reports = Vec::new();
        for config in configs {
            let (pool, report) = open::open(system.as_ref(), &boot_id, config)?;
            if pools.iter().any(|other: &OpenPool| other.name == pool.name || other.id == pool.id) {
                return Err(Error::invalid("pool", format!("{:?} is given twice", pool.name)));
            }
            pools.push(pool);
            reports.push(report);
        }
        Ok((Self { system, boot_id, pools }, reports))
    }

    /// The door to the machine.
    pub fn system(&self) -> &dyn System {
        self.system.as_ref()
    }

    /// Every pool; the first is the default.
    pub fn pools(&self) -> &[OpenPool] {
        &self.pools
    }

    /// The pool with that identity.
    pub fn pool(&self, id: &PoolId) -> Option<&OpenPool> {
        self.pools.iter().find(|pool| pool.id == *id)
    }

    /// What the kernel shows of a volume.
    pub fn look(&self, pool: &OpenPool, id: &VolumeId) -> Result<Look> {
        let image = pool.layout.image(id);
        let mut loops =
            self.system.loops(&[image]).map_err(|error| look_failed("the loop devices", &error))?;
        let mounts = self.system.mounts().map_err(|error| look_failed("the mounts", &error))?;
        Ok(Look { loops: loops.pop().unwrap_or_default(), mounts })
    }

    /// What there is to promise. Thick volumes' debts are read from their files: only the kernel knows which of their
    /// blocks are shared right now.
    pub fn supply(&self, pool: &OpenPool) -> Result<Supply> {
        let space = self
            .system
            .space(pool.layout.root())
            .map_err(|error| look_failed("the space of the pool", &error))?;
        let thick: Vec<PathBuf> = pool
            .index()
            .volumes
            .values()
            .filter(|volume| volume.spec.parameters.provisioning == Provisioning::Thick)
            .map(|volume| pool.layout.image(&volume.id))
            .collect();
        let mut owed = 0;
        for image in thick {
            match self.system.usage(&image) {
                Ok(usage) => owed += usage.owed(),
                // Deleted between the two looks.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(look_failed("the blocks of a volume", &error)),
            }
        }
        let in_flight = lock(&pool.in_flight).values().sum();
        Ok(Supply { space, owed, in_flight })
    }

    /// Executes a plan of one object. After a failure the index is read from disk again.
    pub fn run(&self, pool: &OpenPool, subject: Subject<'_>, plan: &Plan) -> Result<()> {
        if plan.steps.is_empty() {
            return Ok(());
        }
        self.check_pool(pool)?;
        match execute(self.system.as_ref(), plan) {
            Ok(()) => {
                let mut index = pool.index();
                plan.changes.iter().cloned().for_each(|change| index.apply(change));
                Ok(())
            }
            Err(failed) => {
                if failed.is_lost_sync() {
                    pool.index().failed = Some(format!(
                        "{}: {}; what is on disk is unknown: look at the disk, then restart the driver",
                        failed.step, failed.error
                    ));
                }
                self.reload(pool, subject);
                Err(failed.into())
            }
        }
    }

    /// A pool whose disk is gone would silently become a directory of the disk below.
    fn check_pool(&self, pool: &OpenPool) -> Result<()> {
        let failed = |why| Err(Error::PoolFailed { pool: pool.name.clone(), why });
        if let Some(why) = pool.index().failed.clone() {
            return failed(why);
        }
        match self.system.identity(pool.layout.root()) {
            Ok(identity) if identity == pool.identity => Ok(()),
            Ok(_) => failed(
                "another directory is there now: mount its disk again and restart the driver".to_owned(),
            ),
            Err(error) => failed(error.to_string()),
        }
    }

    fn reload(&self, pool: &OpenPool, subject: Subject<'_>) {
        match subject {
            Subject::Volume(id) => {
                let volume = self.reread(&pool.layout.volume(id).join(layout::META));
                let run = self.reread(&pool.layout.run(id));
                let mut index = pool.index();
                index.apply(volume.map_or(Change::NoVolume(id.clone()), Change::Volume));
                index.apply(run.map_or(Change::NoRun(id.clone()), Change::Run));
            }
            Subject::Snapshot(id) => {
                let snapshot = self.reread(&pool.layout.snapshot(id).join(layout::META));
                pool.index().apply(snapshot.map_or(Change::NoSnapshot(id.clone()), Change::Snapshot));
            }
        }
    }

    fn reread<T: serde::de::DeserializeOwned>(&self, path: &std::path::Path) -> Option<T> {
        record::decode(&self.system.read(path).ok()?).ok()
    }
}

impl OpenPool {
    /// The index. Hold it while deciding, never while executing.
    pub fn index(&self) -> MutexGuard<'_, Pool> {
        lock(&self.index)
    }

    /// Counts `bytes` as taken until the value is dropped.
    pub fn reserve(&self, name: &str, bytes: u64) -> Reservation<'_> {
        lock(&self.in_flight).insert(name.to_owned(), bytes);
        Reservation { pool: self, name: name.to_owned() }
    }

    /// The volume with that id.
    pub fn volume(&self, id: &VolumeId) -> Option<VolumeRecord> {
        self.index().volumes.get(id).cloned()
    }
}

/// Space that a call is about to take.
#[derive(Debug)]
#[must_use = "it is given back when it is dropped"]
pub struct Reservation<'a> {
    pool: &'a OpenPool,
    name: String,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        lock(&self.pool.in_flight).remove(&self.name);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves values that were whole: each is changed in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look_failed(what: &str, error: &io::Error) -> Error {
    Error::Effect(format!("failed to look at {what}: {error}"))
}
