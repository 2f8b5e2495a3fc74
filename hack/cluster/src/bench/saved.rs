//! Data of etcd at each size, made once by upstream's own controllers and kept: every run begins with a copy.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::home::{Home, User, remove_orphans};
use super::manifests::{self, NAMESPACES, NODES};
use super::plane::Plane;
use super::run::Run;
use super::scale::Scale;
use super::subject::{Controllers, Subject};
use crate::process::{command, run};
use crate::progress::Progress;
use crate::setup;

/// Part of the key: raise it when the way the data are made changes.
const FORMAT: u32 = 1;
const PREFIX: &str = ".building-";

/// Where the saved data of all sizes are.
pub(crate) fn dir() -> Result<PathBuf> {
    Ok(setup::cache_dir()?.join("bench"))
}

/// Puts the data of `pods` pods where the home's etcd will find them; makes them first if they do not exist.
pub(crate) fn restore(home: &Home, scale: &Scale, pods: usize, progress: &Progress) -> Result<()> {
    let saved = path(scale, pods)?;
    if !saved.is_dir() {
        make(home, scale, pods, progress)?;
    }
    clear(home)?;
    let data = home.etcd_data();
    run(command("cp").args(["-a", "--sparse=always"]).arg(&saved).arg(&data)).map(drop)
}

fn path(scale: &Scale, pods: usize) -> Result<PathBuf> {
    let recipe = serde_json::json!([
        FORMAT,
        manifests::VERSION,
        setup::kubernetes_version()?,
        manifests::deployment(0, scale.replicas),
        (NAMESPACES, NODES),
    ]);
    let digest = hex::encode(Sha256::digest(recipe.to_string()));
    Ok(dir()?.join(format!("{pods}-{}", &digest[..16])))
}

fn make(home: &Home, scale: &Scale, pods: usize, progress: &Progress) -> Result<()> {
    if pods == 0 {
        make_empty(home, progress)?;
    } else {
        restore(home, scale, 0, progress)?;
        make_full(home, scale, pods, progress)?;
    }
    let parent = dir()?;
    fs::create_dir_all(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
    remove_orphans(&parent, PREFIX);
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let temporary = tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent);
    let temporary = temporary.with_context(|| format!("cannot write to {}", parent.display()))?;
    let copy = temporary.path().join("etcd");
    run(command("cp").args(["-a", "--sparse=always"]).arg(home.etcd_data()).arg(&copy))?;
    let target = path(scale, pods)?;
    fs::rename(&copy, &target).with_context(|| format!("cannot create {}", target.display()))
}

/// Namespaces and nodes; the nodes become Ready when kwok first sees them, and nobody here minds before.
fn make_empty(home: &Home, progress: &Progress) -> Result<()> {
    clear(home)?;
    progress.run("make the empty cluster", || {
        let plane = Plane::start(home)?;
        let api = plane.api(User::Driver)?;
        for at in 0..NAMESPACES {
            api.create("/api/v1/namespaces", &manifests::namespace(at))?;
        }
        for at in 0..NODES {
            api.create("/api/v1/nodes", &manifests::node(at))?;
        }
        plane.compact()?;
        plane.stop()
    })
}

/// Upstream's controllers bring the Deployments to their fixed point, so that it is one of upstream's.
fn make_full(home: &Home, scale: &Scale, pods: usize, progress: &Progress) -> Result<()> {
    let mut step = progress.step(format!("make the cluster with {pods} pods (once)"));
    let mut run = Run::start(home, Subject::Kcm, None, Controllers::Replicas, true)?;
    let wanted = run.create_deployments(scale.deployments(pods), scale.replicas)?;
    run.wait_done(&wanted, Scale::patience(pods), |ready| {
        step.update(format!("make the cluster with {pods} pods (once), {ready} ready"));
    })?;
    run.wait_quiet()?;
    let api = run.api()?;
    for at in 0..NAMESPACES {
        api.delete(&format!("/api/v1/namespaces/{}/events", manifests::namespace_name(at)))?;
    }
    run.finish(Plane::compact)?;
    step.done();
    Ok(())
}

fn clear(home: &Home) -> Result<()> {
    let data = home.etcd_data();
    match fs::remove_dir_all(&data) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", data.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data of another shape must never be taken for these.
    #[test]
    fn the_key_follows_the_recipe() {
        let (full, quick) = (Scale::full(), Scale::quick());
        assert_ne!(path(&full, 1000).unwrap(), path(&quick, 1000).unwrap());
        assert_ne!(path(&full, 1000).unwrap(), path(&full, 2000).unwrap());
        assert_eq!(path(&full, 1000).unwrap(), path(&Scale { burst: 1, ..full }, 1000).unwrap());
    }
}
