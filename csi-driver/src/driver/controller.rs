//! Calls of the Controller service.

use crate::model::{
    CapacityRange, Error, Provisioning, Published, Result, SnapshotRecord, Source, Usage, VolumeRecord,
    layout,
};
use crate::plan::{
    self, CreateSnapshot, CreateVolume, Fresh, Origin, SnapshotSpec, Wanted, existing_snapshot,
};
use crate::store::{OpenPool, Subject};

use super::Driver;

/// A snapshot as `CreateSnapshot` asks for it, with the id of its source as it came.
#[derive(Clone, Debug)]
pub struct SnapshotRequest {
    /// The caller's name for it.
    pub name: String,
    /// The volume.
    pub source: String,
}

impl Driver {
    /// `CreateVolume`.
    pub fn create_volume(&self, wanted: &Wanted) -> Result<VolumeRecord> {
        let _name = self.claim(&format!("volume name {}", wanted.name))?;
        let source = match &wanted.source {
            Some(Source::Volume(id)) => Some(self.claim(&id.to_string())?),
            Some(Source::Snapshot(id)) => Some(self.claim(&id.to_string())?),
            None => None,
        };
        let pool = self.pool_to_create_in(wanted)?;
        let fresh = Fresh { id: self.fresh_volume_id(pool)?, now: self.store.system().now() };
        let supply = self.store.supply(pool)?;
        let planned = {
            let origin = self.origin(pool, wanted)?;
            plan::create_volume(&pool.index(), supply, wanted, origin.as_ref(), &fresh)?
        };
        let (record, plan) = match planned {
            CreateVolume::Exists(record) => return Ok(record),
            CreateVolume::Make(record, plan) => (record, plan),
        };
        let _reserved = pool.reserve(&wanted.name, record.size);
        self.store.run(pool, Subject::Volume(&record.id), &plan)?;
        drop(source);
        Ok(record)
    }

    fn fresh_volume_id(&self, pool: &OpenPool) -> Result<crate::model::VolumeId> {
        let (now, random) = self.fresh()?;
        Ok(crate::model::VolumeId::new(&pool.id, now, random))
    }

    /// The time in milliseconds, and random bits.
    fn fresh(&self) -> Result<(u64, u128)> {
        let system = self.store.system();
        let random = system
            .random()
            .map_err(|error| Error::Effect(format!("failed to draw a random number: {error}")))?;
        Ok((u64::try_from(system.now().as_millisecond()).unwrap_or_default(), random))
    }

    /// Where a volume of that name is, or its source, or where its class says.
    fn pool_to_create_in(&self, wanted: &Wanted) -> Result<&OpenPool> {
        let pools = self.store.pools();
        if let Some(pool) = pools.iter().find(|pool| pool.index().volume_named(&wanted.name).is_some()) {
            return Ok(pool);
        }
        let Some(source) = &wanted.source else { return self.pool_for(&wanted.parameters) };
        let id = match source {
            Source::Snapshot(id) => id.pool(),
            Source::Volume(id) => id.pool(),
        };
        let pool = self.store.pool(id).ok_or_else(|| {
            Error::Exhausted(format!("the source is in pool {id}, which is not on node {:?}", self.node))
        })?;
        match &wanted.parameters.pool {
            Some(name) if *name != pool.name => Err(Error::Exhausted(format!(
                "the source is in pool {:?} and the class names pool {name:?}: blocks can be shared inside a pool only",
                pool.name
            ))),
            _ => Ok(pool),
        }
    }

    fn origin(&self, pool: &OpenPool, wanted: &Wanted) -> Result<Option<Origin>> {
        match &wanted.source {
            None => Ok(None),
            Some(Source::Snapshot(id)) => {
                self.pool_of_snapshot(&id.to_string())?;
                let index = pool.index();
                let record = index.snapshots.get(id).ok_or_else(|| Error::NoSnapshot(id.to_string()))?;
                Ok(Some(Origin::snapshot(&index, record)))
            }
            Some(Source::Volume(id)) => {
                self.pool_of(&id.to_string())?;
                let usage = self.usage(pool, id)?;
                let look = self.store.look(pool, id)?;
                let index = pool.index();
                let record = index.volumes.get(id).ok_or_else(|| Error::NoVolume(id.to_string()))?;
                Ok(Some(Origin::volume(&look.view(&self.store, &index, record), usage)))
            }
        }
    }

    /// What the file of a thick volume is made of; nobody asks for that of a thin one.
    fn usage(&self, pool: &OpenPool, id: &crate::model::VolumeId) -> Result<Usage> {
        let thick =
            pool.volume(id).is_some_and(|volume| volume.spec.parameters.provisioning == Provisioning::Thick);
        if !thick {
            return Ok(Usage::default());
        }
        let image = pool.layout.image(id);
        self.store
            .system()
            .usage(&image)
            .map_err(|error| Error::Effect(format!("failed to look at {}: {error}", image.display())))
    }

    /// `DeleteVolume`. What does not exist is deleted.
    pub fn delete_volume(&self, id: &str) -> Result<()> {
        let _claim = self.claim(id)?;
        let (id, pool) = match self.pool_of(id) {
            Err(Error::NoVolume(_)) => return Ok(()),
            other => other?,
        };
        let look = self.store.look(pool, &id)?;
        let plan = {
            let index = pool.index();
            let record = index.volumes.get(&id).ok_or_else(|| Error::NoVolume(id.to_string()))?;
            plan::delete_volume(&index, &look.view(&self.store, &index, record))?
        };
        self.store.run(pool, Subject::Volume(&id), &plan)
    }

    /// `CreateSnapshot`.
    pub fn create_snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotRecord> {
        let _name = self.claim(&format!("snapshot name {}", request.name))?;
        let missing = || Error::NoVolume(request.source.clone());
        let source: crate::model::VolumeId = request.source.parse().map_err(|_| missing())?;
        let spec = SnapshotSpec { name: request.name.clone(), source };
        for pool in self.store.pools() {
            if let Some(existing) = existing_snapshot(&pool.index(), &spec)? {
                return Ok(existing);
            }
        }
        let _source = self.claim(&request.source)?;
        let (volume, pool) = self.pool_of(&request.source)?;
        let (now, random) = self.fresh()?;
        let id = crate::model::SnapshotId::new(&pool.id, now, random);
        let fresh = Fresh { id, now: self.store.system().now() };
        let usage = self.usage(pool, &volume)?;
        let supply = self.store.supply(pool)?;
        let look = self.store.look(pool, &volume)?;
        let planned = {
            let index = pool.index();
            let record = index.volumes.get(&volume).ok_or_else(missing)?;
            let view = look.view(&self.store, &index, record);
            plan::create_snapshot(&index, supply, &view, usage, &spec, &fresh)?
        };
        match planned {
            CreateSnapshot::Exists(record) => Ok(record),
            CreateSnapshot::Make(record, plan) => {
                self.store.run(pool, Subject::Snapshot(&record.id), &plan)?;
                Ok(record)
            }
        }
    }

    /// `DeleteSnapshot`. What does not exist is deleted.
    pub fn delete_snapshot(&self, id: &str) -> Result<()> {
        let _claim = self.claim(id)?;
        let (id, pool) = match self.pool_of_snapshot(id) {
            Err(Error::NoSnapshot(_)) => return Ok(()),
            other => other?,
        };
        let plan = plan::delete_snapshot(&pool.index(), &id);
        self.store.run(pool, Subject::Snapshot(&id), &plan)
    }

    /// `ControllerPublishVolume`.
    pub fn attach(&self, id: &str, node: &str, how: &Published) -> Result<()> {
        let _claim = self.claim(id)?;
        let (id, pool) = self.pool_of(id)?;
        if node != self.node {
            return Err(Error::NoNode(node.to_owned(), self.node.clone()));
        }
        let others = self.volumes().iter().filter(|volume| volume.attached.is_some()).count();
        let look = self.store.look(pool, &id)?;
        let plan = {
            let index = pool.index();
            let record = index.volumes.get(&id).ok_or_else(|| Error::NoVolume(id.to_string()))?;
            plan::attach(&look.view(&self.store, &index, record), how, others, self.max_volumes)?
        };
        plan.map_or(Ok(()), |plan| self.store.run(pool, Subject::Volume(&id), &plan))
    }

    /// `ControllerUnpublishVolume`. What does not exist, or is attached elsewhere, is detached.
    pub fn detach(&self, id: &str, node: &str) -> Result<()> {
        let _claim = self.claim(id)?;
        if !node.is_empty() && node != self.node {
            return Ok(());
        }
        let (id, pool) = match self.pool_of(id) {
            Err(Error::NoVolume(_)) => return Ok(()),
            other => other?,
        };
        let look = self.store.look(pool, &id)?;
        let plan = {
            let index = pool.index();
            let record = index.volumes.get(&id).ok_or_else(|| Error::NoVolume(id.to_string()))?;
            plan::detach(&look.view(&self.store, &index, record))?
        };
        plan.map_or(Ok(()), |plan| self.store.run(pool, Subject::Volume(&id), &plan))
    }

    /// `ControllerExpandVolume`: the size afterwards, and whether the node has something to do.
    pub fn controller_expand(&self, id: &str, range: Option<CapacityRange>) -> Result<(u64, bool)> {
        let _claim = self.claim(id)?;
        let range = super::required(range)?;
        let (id, pool) = self.pool_of(id)?;
        let supply = self.store.supply(pool)?;
        let look = self.store.look(pool, &id)?;
        let plan = {
            let index = pool.index();
            let record = index.volumes.get(&id).ok_or_else(|| Error::NoVolume(id.to_string()))?;
            plan::controller_expand(&index, supply, &look.view(&self.store, &index, record), range)?
        };
        if let Some(plan) = plan {
            let before = pool.volume(&id).map_or(0, |record| record.size);
            let _reserved = pool.reserve(&id.to_string(), range.required.saturating_sub(before));
            self.store.run(pool, Subject::Volume(&id), &plan)?;
        }
        let record = pool.volume(&id).ok_or_else(|| Error::NoVolume(id.to_string()))?;
        Ok((record.size, record.spec.filesystem.is_some()))
    }

    /// Every volume, by id.
    pub fn volumes(&self) -> Vec<VolumeRecord> {
        let mut all: Vec<_> = self
            .store
            .pools()
            .iter()
            .flat_map(|pool| pool.index().volumes.values().cloned().collect::<Vec<_>>())
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Every snapshot, by id.
    pub fn snapshots(&self) -> Vec<SnapshotRecord> {
        let mut all: Vec<_> = self
            .store
            .pools()
            .iter()
            .flat_map(|pool| pool.index().snapshots.values().cloned().collect::<Vec<_>>())
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// One volume.
    pub fn volume(&self, id: &str) -> Result<VolumeRecord> {
        let (parsed, pool) = self.pool_of(id)?;
        pool.volume(&parsed).ok_or_else(|| Error::NoVolume(id.to_owned()))
    }

    /// One snapshot.
    pub fn snapshot(&self, id: &str) -> Result<SnapshotRecord> {
        let (parsed, pool) = self.pool_of_snapshot(id)?;
        let found = pool.index().snapshots.get(&parsed).cloned();
        found.ok_or_else(|| Error::NoSnapshot(id.to_owned()))
    }

    /// Where a volume's record lies, for people.
    pub fn where_is(&self, record: &VolumeRecord) -> Option<std::path::PathBuf> {
        Some(self.store.pool(record.id.pool())?.layout.volume(&record.id).join(layout::META))
    }
}
