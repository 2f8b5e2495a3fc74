//! One look at everything in a pool. It changes nothing, so it is also what `inspect` shows.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::look_failed;
use crate::model::record::{Marker, decode};
use crate::model::{Error, Layout, Result, layout};
use crate::plan::{Entry, Reconciled, RunEntry, Scan, reconcile};
use crate::sys::System;

/// What `inspect` shows.
#[derive(Clone, Debug)]
pub struct Report {
    /// The marker.
    pub marker: Marker,
    /// Everything else.
    pub reconciled: Reconciled,
}

/// Looks at a pool that need not be served by this process.
pub fn inspect(system: &dyn System, directory: &Path) -> Result<Report> {
    let layout = Layout::new(directory);
    let path = layout.marker();
    let bytes = system.read(&path).map_err(|error| {
        Error::Precondition(format!("{} cannot be read: {error}: is this a pool?", path.display()))
    })?;
    let marker =
        decode(&bytes).map_err(|damage| Error::Precondition(format!("{}: {damage}", path.display())))?;
    let boot_id = system.boot_id().map_err(|error| look_failed("the boot id", &error))?;
    Ok(Report { marker, reconciled: look(system, &boot_id, &layout)? })
}

/// Looks, and decides what has to be repaired.
pub(super) fn look(system: &dyn System, boot_id: &str, layout: &Layout) -> Result<Reconciled> {
    let failed = |error: io::Error| look_failed(&layout.root().display().to_string(), &error);
    let names = |name: &str| match system.list(&layout.directory(name)) {
        // A pool that is only being inspected may never have been opened.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    };
    let mounts = system.mounts().map_err(failed)?;
    let mut temporaries = Vec::new();
    let volumes = entries(system, &layout.directory("vol"), &names("vol").map_err(failed)?, &mut temporaries);
    let snapshots =
        entries(system, &layout.directory("snap"), &names("snap").map_err(failed)?, &mut temporaries);
    let mut runs = Vec::new();
    for name in names("run").map_err(failed)? {
        let path = layout.directory("run").join(&name);
        if name.ends_with(layout::TEMPORARY) {
            temporaries.push(path);
        } else {
            runs.push(RunEntry { record: read(system, &path), path });
        }
    }
    let scan = Scan {
        layout,
        boot_id,
        new: names("new").map_err(failed)?,
        trash: names("trash").map_err(failed)?,
        temporaries,
        volumes: volumes.map_err(failed)?,
        snapshots: snapshots.map_err(failed)?,
        runs,
        mounts: &mounts,
    };
    reconcile(&scan)
}

fn entries<T: DeserializeOwned>(
    system: &dyn System,
    directory: &Path,
    names: &[String],
    temporaries: &mut Vec<PathBuf>,
) -> io::Result<Vec<Entry<T>>> {
    let images: Vec<PathBuf> = names.iter().map(|name| directory.join(name).join(layout::IMAGE)).collect();
    let loops = system.loops(&images)?;
    let mut entries = Vec::new();
    for ((name, image), loops) in names.iter().zip(images).zip(loops) {
        let meta = directory.join(name).join(layout::META);
        let temporary = layout::temporary(&meta);
        if system.size(&temporary)?.is_some() {
            temporaries.push(temporary);
        }
        let record = read(system, &meta);
        entries.push(Entry { name: name.clone(), record, image: system.size(&image)?, loops });
    }
    Ok(entries)
}

fn read<T: DeserializeOwned>(system: &dyn System, path: &Path) -> Result<T, String> {
    let bytes = system.read(path).map_err(|error| error.to_string())?;
    decode(&bytes).map_err(|damage| damage.to_string())
}
