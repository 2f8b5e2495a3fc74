//! Opening a pool: its marker, its lock, what its filesystem can do, and everything that an earlier life left behind.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use super::{OpenPool, scan};
use crate::model::record::{Marker, decode};
use crate::model::{Error, Layout, Pool, PoolSettings, Result, layout};
use crate::plan::{Effect, Plan, init_pool};
use crate::sys::{System, execute};

/// What an administrator says about a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    /// The name that classes use.
    pub name: String,
    /// Its directory.
    pub directory: PathBuf,
    /// Its settings.
    pub settings: PoolSettings,
    /// Whether an empty directory becomes a pool. Without it, a disk that is not mounted is noticed.
    pub create: bool,
}

/// What opening a pool found and did.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The pool's name.
    pub pool: String,
    /// What was found, and what became of it.
    pub repairs: Vec<(String, Result<()>)>,
}

/// Opens one pool.
pub(super) fn open(system: &dyn System, boot_id: &str, config: &PoolConfig) -> Result<(OpenPool, Opened)> {
    let layout = Layout::new(&config.directory);
    let failed = |why: String| Error::PoolFailed { pool: config.name.clone(), why };
    let no_disk = |error: io::Error| failed(format!("{}: {error}", config.directory.display()));
    let identity = system.identity(layout.root()).map_err(no_disk)?;
    if !config.create && system.size(&layout.marker()).map_err(no_disk)?.is_none() {
        return Err(failed(format!(
            "{} is missing: is the disk mounted? A new pool is made only where `create` is set",
            layout.marker().display()
        )));
    }
    let lock = system.lock(&layout.lock()).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => failed("another process serves it".to_owned()),
        _ => no_disk(error),
    })?;
    let marker = marker(system, &layout, &config.name)?;
    let features = system.features(layout.root()).map_err(no_disk)?;
    let mut pool = Pool {
        name: config.name.clone(),
        id: marker.id(),
        layout: layout.clone(),
        settings: config.settings,
        features,
        volumes: BTreeMap::new(),
        snapshots: BTreeMap::new(),
        runs: BTreeMap::new(),
        damaged: BTreeMap::new(),
        failed: None,
    };
    let repairs = reconcile(system, boot_id, &mut pool)?;
    let opened = OpenPool {
        name: pool.name.clone(),
        id: pool.id.clone(),
        layout,
        identity,
        index: Mutex::new(pool),
        in_flight: Mutex::default(),
        _lock: lock,
    };
    Ok((opened, Opened { pool: config.name.clone(), repairs }))
}

/// The marker, made if the directory is empty. (Whether that is allowed was asked before.)
fn marker(system: &dyn System, layout: &Layout, name: &str) -> Result<Marker> {
    let failed = |why: String| Error::PoolFailed { pool: name.to_owned(), why };
    match system.read(&layout.marker()) {
        Ok(bytes) => {
            let marker = decode(&bytes).map_err(|damage| failed(format!("pool.json: {damage}")))?;
            execute(system, &init_pool(layout, None)?)?;
            Ok(marker)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let names = system.list(layout.root()).map_err(|error| failed(error.to_string()))?;
            let ours = |name: &String| {
                ["LOCK", "lost+found", "pool.json.tmp"].contains(&name.as_str())
                    || layout::DIRECTORIES.contains(&name.as_str())
            };
            if let Some(foreign) = names.iter().find(|name| !ours(name)) {
                return Err(failed(format!(
                    "{} is no pool and not empty ({foreign}): give it an empty directory",
                    layout.root().display()
                )));
            }
            let random = system.random().map_err(|error| failed(error.to_string()))?;
            let uuid = uuid::Builder::from_random_bytes(random.to_ne_bytes()).into_uuid();
            let marker = Marker { uuid, created: system.now() };
            execute(system, &init_pool(layout, Some(&marker))?)?;
            Ok(marker)
        }
        Err(error) => Err(failed(format!("pool.json: {error}"))),
    }
}

/// Brings the pool in order and fills its index.
pub(super) fn reconcile(
    system: &dyn System,
    boot_id: &str,
    pool: &mut Pool,
) -> Result<Vec<(String, Result<()>)>> {
    let reconciled = scan::look(system, boot_id, &pool.layout)?;
    reconciled.index.into_iter().for_each(|change| pool.apply(change));
    pool.damaged = reconciled.damaged;
    let mut done = Vec::new();
    for repair in reconciled.repairs {
        let result = if repair.plan.steps.is_empty() {
            Err(Error::Precondition("needs a person".to_owned()))
        } else {
            execute(system, &repair.plan).map_err(Error::from)
        };
        if result.is_ok() {
            repair.plan.changes.into_iter().for_each(|change| pool.apply(change));
        }
        done.push((repair.finding.to_string(), result));
    }
    // What is seen here may be a rename that the process before was killed before it could sync. A repeated call finds
    // it done and answers OK, so from now on it has to last.
    let durable = Effect::SyncPool { root: pool.layout.root().to_owned() };
    execute(system, &Plan { steps: vec![durable], ..Plan::default() })?;
    Ok(done)
}
