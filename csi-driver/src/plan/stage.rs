//! `NodeStageVolume` and `NodeUnstageVolume`.
//!
//! Staging attaches the image, formats it once in its life, and mounts it. Until the mount holds the loop device, this
//! process does; so if it dies in between, the kernel frees the device. A block volume has nobody to hold its device
//! open: its run record owns it, and unstaging (or a start of the driver) frees it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::{Effect, PathKind, Plan, TargetKind, View};
use crate::model::pool::Change;
use crate::model::{
    AccessType, Capability, Content, Error, Filesystem, Provisioning, Result, RunRecord, VolumeRecord, layout,
};

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is staged there already, in the same way.
    Done,
    /// It has to be staged.
    Do(Plan),
}

/// Decides. `kind` is what is at `path`; `uuid` is used if the volume has to be formatted.
pub fn stage(
    view: &View<'_>,
    path: &Path,
    kind: PathKind,
    capability: &Capability,
    uuid: Uuid,
) -> Result<Stage> {
    let record = view.volume;
    check_access(record, capability)?;
    let live = is_staged(view);
    if let (true, Some(run)) = (live, view.current_run()) {
        if run.staging != path {
            return Err(Error::Precondition(format!(
                "volume {} is staged at {}: unstage it there first",
                record.id,
                run.staging.display()
            )));
        }
        if run.capability != *capability {
            return Err(Error::Differs { name: path.display().to_string(), differs: "volume_capability" });
        }
        return finish(view, path);
    }
    check_free(view, path, kind)?;
    let run = RunRecord {
        volume: record.id.clone(),
        boot_id: view.boot_id.to_owned(),
        staging: path.to_owned(),
        capability: capability.clone(),
        published: std::collections::BTreeMap::new(),
    };
    let mut plan = Plan::default();
    plan.note(&view.layout.run(&record.id), &run)?;
    match &capability.access {
        AccessType::Block => attach_block(&mut plan, view, capability),
        AccessType::Mount { options, .. } => {
            if kind == PathKind::Missing {
                plan.steps.push(Effect::MakeTarget { path: path.to_owned(), kind: TargetKind::Directory });
            }
            mount(&mut plan, view, path, options, uuid)?;
        }
    }
    plan.undo.push(Effect::RemoveFile { path: view.layout.run(&record.id) });
    plan.changes.push(Change::Run(run));
    Ok(Stage::Do(plan))
}

/// A process that was killed between mounting and growing left a filesystem that is too small.
fn finish(view: &View<'_>, path: &Path) -> Result<Stage> {
    let record = view.volume;
    let (Some(fs), Content::Formatted { uuid, grown_to }) = (record.spec.filesystem, &record.content) else {
        return Ok(Stage::Done);
    };
    if *grown_to == record.size || fs.grows_unmounted() {
        return Ok(Stage::Done);
    }
    let content = Content::Formatted { uuid: *uuid, grown_to: record.size };
    let grown = VolumeRecord { content, ..record.clone() };
    let mut plan = Plan::default();
    plan.steps.push(Effect::SetCapacity { image: view.image() });
    plan.steps.push(Effect::Grow { image: view.image(), fs, mounted: Some(path.to_owned()) });
    plan.replace(&meta(view), &grown)?;
    plan.changes.push(Change::Volume(grown));
    Ok(Stage::Do(plan))
}

fn check_access(record: &VolumeRecord, capability: &Capability) -> Result<()> {
    match (&capability.access, record.spec.filesystem) {
        (AccessType::Block, None) => Ok(()),
        (AccessType::Mount { fs, .. }, Some(has)) if fs.is_none_or(|fs| fs == has) => Ok(()),
        (AccessType::Mount { .. }, Some(has)) => Err(Error::Precondition(format!(
            "volume {} has {has}: it cannot be staged with another fs_type",
            record.id
        ))),
        (AccessType::Block, Some(_)) => Err(Error::Precondition(format!(
            "volume {} holds a filesystem: it cannot be staged as a block device",
            record.id
        ))),
        (AccessType::Mount { .. }, None) => {
            Err(Error::Precondition(format!("volume {} is a block volume: it cannot be mounted", record.id)))
        }
    }
}

/// Whether the volume really is staged where its run record says.
pub(super) fn is_staged(view: &View<'_>) -> bool {
    let Some(run) = view.current_run() else { return false };
    if run.is_block() {
        return !view.loops.is_empty();
    }
    view.top(&run.staging).is_some_and(|mount| view.is_ours(mount) && mount.root == Path::new("/"))
}

/// Nothing of ours and nothing of anybody else may be in the way.
fn check_free(view: &View<'_>, path: &Path, kind: PathKind) -> Result<()> {
    let at = path.display();
    if kind == PathKind::File || kind == PathKind::Other || kind == PathKind::Device {
        return Err(Error::invalid("staging_target_path", format!("{at} is not a directory")));
    }
    if let Some(mount) = view.top(path) {
        return Err(Error::Precondition(format!(
            "{at} is mounted already, from {} ({}): unmount it first",
            mount.source, mount.kind
        )));
    }
    let elsewhere = view.elsewhere(path);
    if let Some(other) = elsewhere.first() {
        return Err(Error::Precondition(format!(
            "volume {} is still mounted at {}: unmount it first",
            view.volume.id,
            other.display()
        )));
    }
    Ok(())
}

fn attach(plan: &mut Plan, view: &View<'_>, autoclear: bool, read_only: bool) {
    // Thick volumes stay thick: a discard would punch holes into the file.
    let discard = view.volume.spec.parameters.provisioning == Provisioning::Thin;
    plan.steps.push(Effect::Attach { image: view.image(), autoclear, read_only, discard });
}

fn attach_block(plan: &mut Plan, view: &View<'_>, capability: &Capability) {
    attach(plan, view, false, capability.mode.is_read_only());
    // The run record owns the device from here.
    plan.steps.push(Effect::Release { image: view.image() });
    plan.undo.push(Effect::Detach { image: view.image() });
}

fn mount(
    plan: &mut Plan,
    view: &View<'_>,
    path: &Path,
    options: &BTreeSet<String>,
    uuid: Uuid,
) -> Result<()> {
    let record = view.volume;
    let image = view.image();
    let fs = record.spec.filesystem.unwrap_or(Filesystem::DEFAULT);
    if !view.loops.is_empty() {
        // A program of an earlier life of this process may still be writing.
        plan.steps.push(Effect::AwaitDetached { image: image.clone() });
    }
    attach(plan, view, true, false);
    let mut formatted = record.clone();
    match record.content {
        Content::Formatted { .. } => prepare(plan, view, fs, &mut formatted)?,
        Content::Blank | Content::Raw => {
            format(plan, view, fs, uuid, &mut formatted)?;
        }
    }
    let mut options = options.clone();
    options.extend(fs.required_mount_options().iter().map(|&option| option.to_owned()));
    plan.steps.push(Effect::Mount { image: image.clone(), target: path.to_owned(), fs, options });
    if let Content::Formatted { uuid, grown_to } = formatted.content
        && grown_to < record.size
    {
        formatted.content = Content::Formatted { uuid, grown_to: record.size };
        plan.steps.push(Effect::Grow { image: image.clone(), fs, mounted: Some(path.to_owned()) });
        // A power cut that takes this back makes it grow again, to the same size.
        plan.replace(&meta(view), &formatted)?;
    }
    plan.steps.push(Effect::Release { image: image.clone() });
    plan.undo.push(Effect::Unmount { target: path.to_owned() });
    plan.undo.push(Effect::Release { image: image.clone() });
    plan.undo.push(Effect::AwaitDetached { image });
    if formatted != *record {
        plan.changes.push(Change::Volume(formatted));
    }
    Ok(())
}

/// What a filesystem that is there already needs before it is mounted.
fn prepare(plan: &mut Plan, view: &View<'_>, fs: Filesystem, record: &mut VolumeRecord) -> Result<()> {
    let image = view.image();
    if fs.is_checked_before_mount() {
        plan.steps.push(Effect::Check { image: image.clone() });
    }
    if let Content::Formatted { uuid, grown_to } = record.content
        && grown_to < record.size
        && fs.grows_unmounted()
    {
        plan.steps.push(Effect::Grow { image, fs, mounted: None });
        record.content = Content::Formatted { uuid, grown_to: record.size };
        plan.replace(&meta(view), record)?;
    }
    Ok(())
}

/// mkfs, and then the record that it never may run again. Before that record lasts, nobody has mounted the filesystem;
/// so a mkfs that was cut off runs again and destroys nothing.
fn format(
    plan: &mut Plan,
    view: &View<'_>,
    fs: Filesystem,
    uuid: Uuid,
    record: &mut VolumeRecord,
) -> Result<()> {
    let discard = record.spec.parameters.provisioning == Provisioning::Thin;
    plan.steps.push(Effect::Format { image: view.image(), fs, uuid, discard });
    plan.steps.push(Effect::SyncDevice { image: view.image() });
    record.content = Content::Formatted { uuid, grown_to: record.size };
    plan.commit(&meta(view), record)
}

fn meta(view: &View<'_>) -> PathBuf {
    view.layout.volume(&view.volume.id).join(layout::META)
}

/// Decides. It continues past everything that is gone already.
pub fn unstage(view: &View<'_>, path: &Path) -> Result<Plan> {
    let id = &view.volume.id;
    let at = view.at(path);
    if let Some(foreign) = at.iter().find(|mount| !view.is_ours(mount)) {
        return Err(Error::Precondition(format!(
            "{} is mounted from {} ({}), which is not volume {id}",
            path.display(),
            foreign.source,
            foreign.kind
        )));
    }
    let others = view.elsewhere(path);
    if let Some(other) = others.first() {
        return Err(Error::Precondition(format!(
            "volume {id} is still published at {}: unpublish it first",
            other.display()
        )));
    }
    let mut plan = Plan::default();
    plan.steps.extend(at.iter().map(|_| Effect::Unmount { target: path.to_owned() }));
    if view.loops.iter().any(|device| !device.autoclear) {
        plan.steps.push(Effect::Detach { image: view.image() });
    }
    if !view.loops.is_empty() {
        plan.steps.push(Effect::AwaitDetached { image: view.image() });
    }
    if view.run.is_some() {
        plan.steps.push(Effect::RemoveFile { path: view.layout.run(id) });
        plan.changes.push(Change::NoRun(id.clone()));
    }
    Ok(plan)
}
