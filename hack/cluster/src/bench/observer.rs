//! Keeps a `World` current: lists pods and Deployments, then watches them from there.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::de::DeserializeOwned;

use super::client::{Api, Change, Versioned};
use super::world::{Deployment, Pod, World};

const PODS: &str = "/api/v1/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";

/// The bench's eyes. They close when the API server ends.
#[derive(Debug)]
pub(crate) struct Observer {
    world: Arc<Mutex<World>>,
    ended: Arc<OnceLock<String>>,
}

impl Observer {
    pub(crate) fn start(api: &Api) -> Result<Self> {
        let mut world = World::default();
        let now = Instant::now();
        let pods = api.list::<Pod>(PODS, |pod| world.pod(pod, false, now))?;
        let deployments = api.list::<Deployment>(DEPLOYMENTS, |deployment| world.deployment(&deployment))?;
        let observer = Self { world: Arc::new(Mutex::new(world)), ended: Arc::default() };
        observer.follow(api, PODS, pods, |world, change: Change<Pod>| {
            world.pod(change.object, change.deleted, Instant::now());
        });
        observer.follow(api, DEPLOYMENTS, deployments, |world, change: Change<Deployment>| {
            world.deployment(&change.object);
        });
        Ok(observer)
    }

    fn follow<T>(&self, api: &Api, path: &'static str, version: String, apply: fn(&mut World, Change<T>))
    where
        T: DeserializeOwned + Versioned + 'static,
    {
        let (api, world, ended) = (api.clone(), Arc::clone(&self.world), Arc::clone(&self.ended));
        thread::spawn(move || {
            let result = api.follow(path, "", version, |change| {
                apply(&mut lock(&world), change);
                ControlFlow::Continue(())
            });
            if let Err(error) = result {
                // The first reason is the cause; a second watch ends for the same.
                let _ = ended.set(format!("{error:#}"));
            }
        });
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
