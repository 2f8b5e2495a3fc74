//! The API's own history of a namespace: every version of every object of some kinds, in the order in which the API
//! server stored them. Kinds share one order, because their versions are revisions of one store. What a controller
//! counts itself is in it, and never trusted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams},
    runtime::watcher,
};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{object, wait};

/// How long the watches may take to show what is there.
const CATCH_UP: Duration = Duration::from_secs(60);

/// One stored version.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Of the store: larger is later.
    pub version: u64,
    /// Of the object.
    pub kind: String,
    /// This was its end, and `object` its last state.
    pub is_end: bool,
    /// The object.
    pub object: Value,
}

impl Entry {
    /// The object's uid.
    pub fn uid(&self) -> &str {
        self.object["metadata"]["uid"].as_str().unwrap_or_default()
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// True for objects made from `kinds`' manifest of that name, and for one of that name itself.
    pub fn is_of(&self, name: &str) -> bool {
        self.object["metadata"]["labels"]["app"] == name || self.name() == name
    }
}

/// Watches from [`History::start`] to [`History::finish`].
#[derive(Debug)]
pub struct History {
    kept: Arc<Mutex<Kept>>,
    watches: Vec<Watched>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: Vec<Entry>,
    gap: Option<String>,
}

#[derive(Debug)]
struct Watched {
    kind: String,
    api: Api<DynamicObject>,
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl History {
    /// Starts watching kinds, each given with its API version; returns once what is there is known.
    pub async fn start(client: &Client, namespace: &str, kinds: &[(&str, &str)]) -> Self {
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let mut watches = Vec::new();
        for (api_version, kind) in kinds {
            let api = object::api(client, namespace, api_version, kind);
            let (listed, mut is_listed) = tokio::sync::watch::channel(false);
            let task = tokio::spawn(keep(api.clone(), (*kind).to_owned(), Arc::clone(&kept), listed));
            // An error means that the task is gone; `finish` will say so.
            let _ = is_listed.wait_for(|listed| *listed).await;
            watches.push(Watched { kind: (*kind).to_owned(), api, task });
        }
        Self { kept, watches }
    }

    /// What was seen so far, the earliest first.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = self.kept.lock().unwrap_or_else(PoisonError::into_inner).entries.clone();
        entries.sort_by_key(|entry| entry.version);
        entries
    }

    /// The latest version so far: what comes later is later than now.
    pub fn now(&self) -> u64 {
        self.entries().last().map_or(0, |entry| entry.version)
    }

    /// Stops once it has seen what is there now. Fails when it may have missed a moment.
    pub async fn finish(self) -> Result<Vec<Entry>> {
        for watched in &self.watches {
            let what = format!("the watch of {} to catch up", watched.kind);
            wait::until(&what, CATCH_UP, || self.is_up_to_date(watched)).await?;
            ensure!(
                !watched.task.is_finished(),
                "the watch of {} ended early: nothing was proven",
                watched.kind
            );
        }
        if let Some(gap) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).gap.take() {
            bail!("{gap}");
        }
        Ok(self.entries())
    }

    async fn is_up_to_date(&self, watched: &Watched) -> Result<bool> {
        let stored = watched.api.list(&ListParams::default()).await?.items;
        let stored: BTreeSet<_> =
            stored.iter().map(|object| (object.uid(), object.resource_version())).collect();
        let entries = self.entries();
        let alive = alive(&entries, |entry| entry.kind == watched.kind);
        let seen: BTreeSet<_> = alive
            .values()
            .map(|object| {
                let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
                (text("uid"), text("resourceVersion"))
            })
            .collect();
        Ok(seen == stored)
    }
}

async fn keep(
    api: Api<DynamicObject>,
    kind: String,
    kept: Arc<Mutex<Kept>>,
    listed: tokio::sync::watch::Sender<bool>,
) {
    let mut events = watcher(api, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        let (object, is_end) = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => (object, false),
            Ok(watcher::Event::Delete(object)) => (object, true),
            Ok(watcher::Event::Init) => {
                if *listed.borrow() {
                    let gap =
                        format!("the watch of {kind} had to list anew: what happened meanwhile is not known");
                    kept.lock().unwrap_or_else(PoisonError::into_inner).gap = Some(gap);
                }
                continue;
            }
            Ok(watcher::Event::InitDone) => {
                // Nobody may be waiting any more: that is no reason to stop watching.
                let _ = listed.send(true);
                continue;
            }
            // The watcher watches on from where it was, or lists anew, which is noted above.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let version = object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0);
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        match serde_json::to_value(object) {
            Ok(object) => kept.entries.push(Entry { version, kind: kind.clone(), is_end, object }),
            Err(error) => kept.gap = Some(format!("a {kind} cannot be understood: {error}")),
        }
    }
}

/// What is there after those entries, by uid.
pub fn alive(entries: &[Entry], wanted: impl Fn(&Entry) -> bool) -> BTreeMap<&str, &Value> {
    let mut alive = BTreeMap::new();
    for entry in entries.iter().filter(|entry| wanted(entry)) {
        if entry.is_end {
            alive.remove(entry.uid());
        } else {
            alive.insert(entry.uid(), &entry.object);
        }
    }
    alive
}

/// First versions of objects, by uid, the earliest first.
pub fn created(entries: &[Entry], wanted: impl Fn(&Entry) -> bool) -> Vec<&Entry> {
    let mut seen = BTreeSet::new();
    entries.iter().filter(|entry| wanted(entry) && seen.insert(entry.uid().to_owned())).collect()
}

/// Looks at what was there after each change of what is `wanted`, from a version on. The objects are given by uid.
pub fn at_every_moment<'a>(
    entries: &'a [Entry],
    since: u64,
    wanted: impl Fn(&Entry) -> bool,
    mut judge: impl FnMut(&BTreeMap<&'a str, &'a Value>) -> Result<()>,
) -> Result<()> {
    let mut alive: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut moments = 0;
    for entry in entries.iter().filter(|entry| wanted(entry)) {
        if entry.is_end {
            alive.remove(entry.uid());
        } else {
            alive.insert(entry.uid(), &entry.object);
        }
        if entry.version >= since {
            judge(&alive).with_context(|| told(entries, entry, &wanted))?;
            moments += 1;
        }
    }
    ensure!(moments > 0, "nothing happened: nothing was proven");
    Ok(())
}

/// The moment, and what led to it.
fn told(entries: &[Entry], at: &Entry, wanted: impl Fn(&Entry) -> bool) -> String {
    const SHOWN: usize = 30;
    let before: Vec<&Entry> =
        entries.iter().filter(|entry| entry.version <= at.version && wanted(entry)).collect();
    let shown = &before[before.len().saturating_sub(SHOWN)..];
    let lines: Vec<String> = shown.iter().map(|entry| line(entry)).collect();
    format!("at version {}, after\n{}\n", at.version, lines.join("\n"))
}

fn line(entry: &Entry) -> String {
    let object = &entry.object;
    let end = if entry.is_end { " gone" } else { "" };
    let going = if object["metadata"]["deletionTimestamp"].is_string() { " terminating" } else { "" };
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    let ready = if object::is_true(object, "Ready") { " ready" } else { "" };
    let node = object["spec"]["nodeName"].as_str().map(|node| format!(" on {node}")).unwrap_or_default();
    format!("  {} {} {}{node} {phase}{ready}{going}{end}", entry.version, entry.kind, entry.name())
}

/// A pod that serves: ready, and not on its way out.
pub fn serves(pod: &Value) -> bool {
    object::is_true(pod, "Ready") && !pod["metadata"]["deletionTimestamp"].is_string()
}
