//! A watch of the API that judges every moment: how many pods there are, how many are available. It trusts
//! nothing that a controller counts itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt, utils::Backoff, watcher},
};
use tokio::task::JoinHandle;

use crate::wait;

/// How long the watch may take to show what is there.
const CATCH_UP: Duration = Duration::from_secs(60);

/// A watch that was cut is tried again at once, however often that happens: what comes and goes meanwhile is missed.
struct Soon;

impl Iterator for Soon {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(100))
    }
}

impl Backoff for Soon {
    fn reset(&mut self) {}
}

/// Watches the pods of one namespace from creation to [`PodMonitor::finish`].
#[derive(Debug)]
pub struct PodMonitor {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
    pods: Api<Pod>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pods: HashMap<String, Moment>,
    /// Pods ever created.
    pub created: usize,
    /// Most pods that were neither finished nor terminating at one moment.
    pub most_active: usize,
    /// Fewest ready pods at one moment, since [`PodMonitor::expect_available`] was called.
    pub fewest_ready: Option<usize>,
    watching_ready: bool,
    /// A list that is on its way: one moment, judged when it is complete.
    listed: Vec<Pod>,
    /// What happened, newest last, for failure messages.
    log: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moment {
    active: bool,
    ready: bool,
}

impl PodMonitor {
    /// Starts watching; returns once the present pods are known.
    pub async fn start(client: &Client, namespace: &str) -> Self {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (ready, mut is_ready) = tokio::sync::watch::channel(false);
        let task = tokio::spawn({
            let (seen, pods) = (Arc::clone(&seen), pods.clone());
            async move {
                let mut events = watcher(pods, watcher::Config::default()).backoff(Soon).boxed();
                while let Some(event) = events.next().await {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    match event {
                        Ok(watcher::Event::Apply(pod)) => seen.see(&pod, false),
                        Ok(watcher::Event::Delete(pod)) => seen.see(&pod, true),
                        Ok(watcher::Event::Init) => seen.listed.clear(),
                        Ok(watcher::Event::InitApply(pod)) => seen.listed.push(pod),
                        Ok(watcher::Event::InitDone) => {
                            seen.see_list();
                            // Nobody may be waiting any more: that is no reason to stop watching.
                            let _ = ready.send(true);
                        }
                        Err(_) => {}
                    }
                }
            }
        });
        // An error means that the task is gone; `finish` will say so.
        let _ = is_ready.wait_for(|ready| *ready).await;
        Self { seen, task, pods }
    }

    /// From now on counts the fewest ready pods.
    pub fn expect_available(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.watching_ready = true;
        seen.judge("");
    }

    /// What has been seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops once it has seen what is there now, and fails when at any moment there were more than `most` active or
    /// fewer than `fewest` ready pods.
    pub async fn finish(self, most: usize, fewest: usize) -> Result<Seen> {
        wait::until("the pod watch to catch up", CATCH_UP, || async {
            let now = self.pods.list(&ListParams::default()).await?.items;
            let seen = self.seen();
            Ok(now.iter().all(|pod| seen.pods.get(&pod.uid().unwrap_or_default()) == Some(&moment(pod))))
        })
        .await?;
        if self.task.is_finished() {
            bail!("the pod watch ended early: nothing was proven");
        }
        self.task.abort();
        let seen = self.seen();
        if seen.most_active > most {
            bail!("{} active pods at one moment, {most} allowed:\n{}", seen.most_active, seen.log.join("\n"));
        }
        if let Some(least) = seen.fewest_ready.filter(|least| *least < fewest) {
            bail!("{least} ready pods at one moment, {fewest} promised:\n{}", seen.log.join("\n"));
        }
        Ok(seen)
    }
}

impl Seen {
    fn see(&mut self, pod: &Pod, deleted: bool) {
        let uid = pod.uid().unwrap_or_default();
        let moment = moment(pod);
        let before = if deleted { self.pods.remove(&uid) } else { self.pods.insert(uid, moment) };
        if before.is_none() && !deleted {
            self.created += 1;
        }
        if before != Some(moment) || deleted {
            let what = if deleted {
                "gone".to_owned()
            } else {
                format!("active={} ready={}", moment.active, moment.ready)
            };
            self.judge(&format!("{} {what}", pod.name_any()));
        }
    }

    /// The watch was cut, and this is what is there now.
    fn see_list(&mut self) {
        let listed = std::mem::take(&mut self.listed);
        let now: HashMap<String, Moment> =
            listed.iter().map(|pod| (pod.uid().unwrap_or_default(), moment(pod))).collect();
        self.created += now.keys().filter(|uid| !self.pods.contains_key(*uid)).count();
        self.pods = now;
        self.judge("listed");
    }

    fn judge(&mut self, what: &str) {
        let active = self.pods.values().filter(|moment| moment.active).count();
        let ready = self.pods.values().filter(|moment| moment.active && moment.ready).count();
        self.most_active = self.most_active.max(active);
        if self.watching_ready {
            self.fewest_ready = Some(self.fewest_ready.map_or(ready, |least| least.min(ready)));
        }
        self.log.push(format!("{} {what}: {active} active, {ready} ready", jiff::Timestamp::now()));
    }
}

fn moment(pod: &Pod) -> Moment {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let active = pod.metadata.deletion_timestamp.is_none() && !matches!(phase, "Succeeded" | "Failed");
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    Moment { active, ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") }
}
