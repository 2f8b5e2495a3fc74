//! Calls of the Node service.

use std::path::{Path, PathBuf};

use crate::model::{Capability, Error, Published, Result, VolumeId};
use crate::plan::{self, PathKind, Plan, Publish, Stage, Target, View};
use crate::store::{OpenPool, Subject};
use crate::sys::MountStats;

use super::{Driver, PUBLISH_PATIENCE};

/// `NodeStageVolume`.
#[derive(Clone, Debug)]
pub struct StageRequest {
    /// The volume.
    pub id: String,
    /// Where.
    pub path: PathBuf,
    /// How.
    pub capability: Capability,
}

/// `NodePublishVolume`.
#[derive(Clone, Debug)]
pub struct TargetRequest {
    /// The volume.
    pub id: String,
    /// Where it is staged.
    pub staging: PathBuf,
    /// Where it is to appear.
    pub target: PathBuf,
    /// How.
    pub published: Published,
}

/// What `NodeGetVolumeStats` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeStats {
    /// Of a filesystem.
    Filesystem(MountStats),
    /// The size of a block volume.
    Block(u64),
}

impl Driver {
    /// Looks at a volume, and decides about it.
    fn decide<T>(
        &self,
        pool: &OpenPool,
        id: &VolumeId,
        decision: impl FnOnce(&View<'_>) -> Result<T>,
    ) -> Result<T> {
        let look = self.store.look(pool, id)?;
        let index = pool.index();
        let record = index.volumes.get(id).ok_or_else(|| Error::NoVolume(id.to_string()))?;
        decision(&look.view(&self.store, &index, record))
    }

    fn kind(&self, field: &'static str, path: &Path) -> Result<PathKind> {
        self.store.system().kind(path).map_err(|error| Error::invalid(field, error.to_string()))
    }

    /// Stages.
    pub fn stage(&self, request: &StageRequest) -> Result<()> {
        let _claim = self.claim(&request.id)?;
        let (id, pool) = self.pool_of(&request.id)?;
        let kind = self.kind("staging_target_path", &request.path)?;
        let random = self
            .store
            .system()
            .random()
            .map_err(|error| Error::Effect(format!("failed to draw a random number: {error}")))?;
        let uuid = uuid::Builder::from_random_bytes(random.to_ne_bytes()).into_uuid();
        let stage =
            self.decide(pool, &id, |view| plan::stage(view, &request.path, kind, &request.capability, uuid))?;
        match stage {
            Stage::Done => Ok(()),
            Stage::Do(plan) => self.store.run(pool, Subject::Volume(&id), &plan),
        }
    }

    /// Unstages. What is not staged is unstaged.
    pub fn unstage(&self, id: &str, path: &Path) -> Result<()> {
        let _claim = self.claim(id)?;
        let (id, pool) = match self.pool_of(id) {
            Err(Error::NoVolume(_)) => return Ok(()),
            other => other?,
        };
        let plan = self.decide(pool, &id, |view| plan::unstage(view, path))?;
        self.store.run(pool, Subject::Volume(&id), &plan)
    }

    /// Publishes.
    pub fn publish(&self, request: &TargetRequest) -> Result<()> {
        let _claim = self.claims.take(&request.id, PUBLISH_PATIENCE)?;
        let (id, pool) = self.pool_of(&request.id)?;
        let kind = self.kind("target_path", &request.target)?;
        let publish = self.decide(pool, &id, |view| {
            plan::publish(
                view,
                &Target {
                    path: &request.target,
                    kind,
                    staging: &request.staging,
                    published: request.published.clone(),
                },
            )
        })?;
        match publish {
            Publish::Done => Ok(()),
            Publish::Do(plan) => self.store.run(pool, Subject::Volume(&id), &plan),
        }
    }

    /// Unpublishes. What is not published is unpublished.
    pub fn unpublish(&self, id: &str, path: &Path) -> Result<()> {
        let _claim = self.claims.take(id, PUBLISH_PATIENCE)?;
        let (id, pool) = match self.pool_of(id) {
            Err(Error::NoVolume(_)) => return self.unpublish_inline(id, path).map(drop),
            other => other?,
        };
        let kind = self.kind("target_path", path)?;
        let plan: Plan = self.decide(pool, &id, |view| plan::unpublish(view, path, kind))?;
        self.store.run(pool, Subject::Volume(&id), &plan)
    }

    /// Grows what is mounted at `path`; the size afterwards.
    pub fn node_expand(&self, id: &str, path: &Path, required: u64) -> Result<u64> {
        let _claim = self.claims.take(id, PUBLISH_PATIENCE)?;
        let (id, pool) = self.pool_of(id)?;
        let record = pool.volume(&id).ok_or_else(|| Error::NoVolume(id.to_string()))?;
        if required > record.size {
            return Err(Error::OutOfRange(format!(
                "capacity_range: volume {id} has {} bytes and {required} are asked for: expand it at the controller first",
                record.size
            )));
        }
        let plan = self.decide(pool, &id, |view| plan::node_expand(view, path))?;
        self.store.run(pool, Subject::Volume(&id), &plan)?;
        Ok(record.size)
    }

    /// Figures of what is at `path`.
    pub fn stats(&self, id: &str, path: &Path) -> Result<VolumeStats> {
        let (parsed, pool) = self.pool_of(id)?;
        let not_there = || Error::NotAtPath { id: id.to_owned(), path: path.to_owned() };
        let size = self.decide(pool, &parsed, |view| {
            let here = view.top(path).filter(|mount| view.is_ours(mount));
            here.map(|_| view.volume.spec.filesystem.is_none().then_some(view.volume.size))
                .ok_or_else(not_there)
        })?;
        match size {
            Some(size) => Ok(VolumeStats::Block(size)),
            None => {
                self.store.system().mount_stats(path).map(VolumeStats::Filesystem).map_err(|_| not_there())
            }
        }
    }
}
