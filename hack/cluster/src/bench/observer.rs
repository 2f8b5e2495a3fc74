//! Keeps a `World` current: lists pods and their owners, then watches them from there.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::de::DeserializeOwned;

use super::client::{Api, Change, Versioned};
use super::owners::{DaemonSet, Deployment, Job, StatefulSet};
use super::world::{Pod, World};

/// The bench's eyes. They close when the API server ends.
#[derive(Debug)]
pub(crate) struct Observer {
    world: Arc<Mutex<World>>,
    ended: Arc<OnceLock<String>>,
}

impl Observer {
    pub(crate) fn start(api: &Api) -> Result<Self> {
        let observer = Self { world: Arc::default(), ended: Arc::default() };
        observer.see(api, "/api/v1/pods", |world, pod: Pod, gone| world.pod(pod, gone, Instant::now()))?;
        // What is gone is not done; no phase deletes an owner.
        observer.see(api, "/apis/apps/v1/deployments", |world, owner: Deployment, _| world.owner(&owner))?;
        observer
            .see(api, "/apis/apps/v1/statefulsets", |world, owner: StatefulSet, _| world.owner(&owner))?;
        observer
            .see(api, "/apis/apps/v1/daemonsets", |world, owner: DaemonSet, _| world.daemon_set(&owner))?;
        observer.see(api, "/apis/batch/v1/jobs", |world, owner: Job, _| world.owner(&owner))?;
        Ok(observer)
    }

    /// Lists what is there, then follows the changes.
    fn see<T>(&self, api: &Api, path: &'static str, apply: fn(&mut World, T, bool)) -> Result<()>
    where
        T: DeserializeOwned + Versioned + 'static,
    {
        let version = api.list::<T>(path, |object| apply(&mut self.world(), object, false))?;
        let (api, world, ended) = (api.clone(), Arc::clone(&self.world), Arc::clone(&self.ended));
        thread::spawn(move || {
            let result = api.follow(path, "", version, |change: Change<T>| {
                apply(&mut lock(&world), change.object, change.deleted);
                ControlFlow::Continue(())
            });
            if let Err(error) = result {
                // The first reason is the cause; a second watch ends for the same.
                let _ = ended.set(format!("{error:#}"));
            }
        });
        Ok(())
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Fails when a watch ended: from then on the counts would be wrong.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(reason) = self.ended.get() {
            bail!("the bench lost its own watch of the API server: {reason}");
        }
        Ok(())
    }
}

/// A reader that panicked cannot leave the world half changed in a way that matters: its run fails anyway.
fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}
