//! The few machine-wide settings that nodes need or that the kubelet changes, and how they get their old values back.
//!
//! They are not per namespace, so all clusters share them: the first one up records the values it finds, the last
//! one down restores them. The record is on disk before anything is changed; a crash at any point loses nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::layout::STATE_ROOT;
use crate::process::write_atomically;

/// Settings we raise: containerd, the kubelet and every watched log file need an inotify instance or watch.
const RAISED: [(&str, u64); 2] =
    [("fs.inotify.max_user_instances", 8192), ("fs.inotify.max_user_watches", 1_048_576)];

/// Settings the kubelet writes at its start (its `setupKernelTunables`).
const KUBELET: [&str; 6] = [
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
];

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// A reboot makes the record worthless: the kernel then has its defaults again.
    boot: String,
    values: BTreeMap<String, String>,
}

/// Every machine-wide setting that a cluster may change.
pub fn names() -> Vec<&'static str> {
    RAISED.iter().map(|(name, _)| *name).chain(KUBELET).collect()
}

/// Records the present values, unless a running cluster already did, and raises what must be raised.
pub(crate) fn raise() -> Result<()> {
    if read_record().is_none() {
        let values = names().into_iter().filter_map(|name| Some((name.to_owned(), read(name)?))).collect();
        let record = Record { boot: boot_id(), values };
        write_atomically(&record_path(), &serde_json::to_vec_pretty(&record)?)?;
    }
    for (name, least) in RAISED {
        let present: u64 = read(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        if present < least {
            write(name, &least.to_string())?;
        }
    }
    Ok(())
}

/// Restores what [`raise`] recorded and forgets it. Without a record there is nothing to do.
pub(crate) fn restore() -> Result<()> {
    let Some(record) = read_record() else {
        let _ = fs::remove_file(record_path());
        return Ok(());
    };
    for (name, value) in &record.values {
        if read(name).as_ref() != Some(value) {
            write(name, value)?;
        }
    }
    fs::remove_file(record_path()).context("cannot remove the record of machine-wide settings")
}

fn record_path() -> PathBuf {
    Path::new(STATE_ROOT).join(".sysctl.json")
}

fn read_record() -> Option<Record> {
    let record: Record = serde_json::from_slice(&fs::read(record_path()).ok()?).ok()?;
    (record.boot == boot_id()).then_some(record)
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn file(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

fn read(name: &str) -> Option<String> {
    Some(fs::read_to_string(file(name)).ok()?.trim().to_owned())
}

fn write(name: &str, value: &str) -> Result<()> {
    fs::write(file(name), value).with_context(|| format!("cannot set {name}={value}"))
}
