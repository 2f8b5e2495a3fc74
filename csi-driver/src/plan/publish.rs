//! `NodePublishVolume` and `NodeUnpublishVolume`.

use std::path::Path;

use super::stage::is_staged;
use super::{Effect, PathKind, Plan, TargetKind, View};
use crate::model::pool::Change;
use crate::model::{AccessType, Capability, Error, Published, Result, RunRecord};

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publish {
    /// It is published there already, in the same way.
    Done,
    /// It has to be published.
    Do(Plan),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// Where.
    pub path: &'a Path,
    /// What is there.
    pub kind: PathKind,
    /// The staging path that the caller believes in.
    pub staging: &'a Path,
    /// How.
    pub published: Published,
}

/// Decides.
pub fn publish(view: &View<'_>, target: &Target<'_>) -> Result<Publish> {
    let id = &view.volume.id;
    let Some(run) = view.current_run().filter(|run| is_staged(view) && run.staging == target.staging) else {
        return Err(Error::Precondition(format!(
            "volume {id} is not staged at {}: stage it first",
            target.staging.display()
        )));
    };
    check_access(run, &target.published.capability)?;
    let path = target.path;
    let mounted = view.top(path);
    match (run.published.get(path), mounted) {
        (Some(before), Some(mount)) if view.is_ours(mount) => {
            if *before != target.published {
                let name = path.display().to_string();
                return Err(Error::Differs { name, differs: "volume_capability or readonly" });
            }
            if mount.read_only == is_read_only(&target.published) {
                return Ok(Publish::Done);
            }
        }
        (_, Some(mount)) => {
            return Err(Error::Precondition(format!(
                "{} is mounted already, from {} ({}): unmount it first",
                path.display(),
                mount.source,
                mount.kind
            )));
        }
        (_, None) => {}
    }
    check_exclusive(view, run, target)?;
    Ok(Publish::Do(bind(view, run, target, mounted.is_some())?))
}

fn check_access(run: &RunRecord, capability: &Capability) -> Result<()> {
    let block = capability.access == AccessType::Block;
    if block != run.is_block() {
        return Err(Error::Precondition(format!(
            "volume {} is staged as a {}",
            run.volume,
            if run.is_block() { "block device" } else { "filesystem" }
        )));
    }
    Ok(())
}

/// ReadWriteOncePod means one target path, for whoever comes first.
fn check_exclusive(view: &View<'_>, run: &RunRecord, target: &Target<'_>) -> Result<()> {
    let other = run.published.iter().find(|(path, published)| {
        *path != target.path
            && (published.capability.mode.is_exclusive() || target.published.capability.mode.is_exclusive())
            && view.top(path).is_some_and(|mount| view.is_ours(mount))
    });
    match other {
        None => Ok(()),
        Some((path, _)) => Err(Error::Precondition(format!(
            "volume {} may be published once and is published at {}",
            run.volume,
            path.display()
        ))),
    }
}

fn is_read_only(published: &Published) -> bool {
    let by_option = match &published.capability.access {
        AccessType::Mount { options, .. } => options.contains("ro"),
        AccessType::Block => false,
    };
    published.readonly || by_option || published.capability.mode.is_read_only()
}

fn bind(view: &View<'_>, run: &RunRecord, target: &Target<'_>, wrong: bool) -> Result<Plan> {
    let path = target.path.to_owned();
    let record = view.layout.run(&run.volume);
    let kind = if run.is_block() { TargetKind::File } else { TargetKind::Directory };
    match (target.kind, kind) {
        (PathKind::Missing, _)
        | (PathKind::Directory, TargetKind::Directory)
        | (PathKind::File, TargetKind::File) => {}
        // What is there is our own mount.
        _ if wrong => {}
        _ => {
            return Err(Error::invalid(
                "target_path",
                format!("{} is there and is no {kind:?}: remove it", path.display()),
            ));
        }
    }
    let mut next = run.clone();
    next.published.insert(path.clone(), target.published.clone());
    let mut plan = Plan::default();
    plan.note(&record, &next)?;
    if wrong {
        plan.steps.push(Effect::Unmount { target: path.clone() });
    }
    plan.steps.push(Effect::MakeTarget { path: path.clone(), kind });
    let read_only = is_read_only(&target.published);
    plan.steps.push(if run.is_block() {
        Effect::BindDevice { image: view.image(), target: path.clone(), read_only }
    } else {
        Effect::Bind { from: run.staging.clone(), target: path.clone(), read_only }
    });
    plan.undo.push(Effect::Unmount { target: path.clone() });
    plan.undo.push(Effect::RemoveTarget { path });
    let mut back = Plan::default();
    back.note(&record, run)?;
    plan.undo.extend(back.steps);
    plan.changes.push(Change::Run(next));
    Ok(plan)
}

/// Decides. It continues past everything that is gone already, and leaves alone what is not ours.
pub fn unpublish(view: &View<'_>, path: &Path, kind: PathKind) -> Result<Plan> {
    let mut plan = Plan::default();
    let at = view.at(path);
    if let Some(foreign) = at.iter().find(|mount| !view.is_ours(mount)) {
        return Err(Error::Precondition(format!(
            "{} is mounted from {} ({}), which is not volume {}",
            path.display(),
            foreign.source,
            foreign.kind,
            view.volume.id
        )));
    }
    plan.steps.extend(at.iter().map(|_| Effect::Unmount { target: path.to_owned() }));
    if kind != PathKind::Missing {
        plan.steps.push(Effect::RemoveTarget { path: path.to_owned() });
    }
    if let Some(run) = view.run.filter(|run| run.published.contains_key(path)) {
        let mut next = run.clone();
        next.published.remove(path);
        plan.note(&view.layout.run(&run.volume), &next)?;
        plan.changes.push(Change::Run(next));
    }
    Ok(plan)
}
