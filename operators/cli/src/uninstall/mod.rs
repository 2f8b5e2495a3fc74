//! `uninstall`: tells what `helm uninstall` has left, and with `--purge` removes it in the order of [`plan`].
//!
//! Each step waits until the server shows that the one before has taken effect, so an interrupted run is finished by
//! the next one.

mod plan;
mod steps;

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use trysail_core::{Resource, resource::PODS};

use crate::{
    args::Uninstall,
    cluster::Cluster,
    failure::{Cause, Failure},
    text::out,
};
use plan::{Definition, Fate, Held, Purge};

const CRDS: Resource = Resource {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
};

/// Tells, asks, and does it.
pub(crate) async fn run(cluster: &Cluster, args: Uninstall) -> Result<()> {
    let cluster = cluster.in_namespace("");
    let definitions = definitions(&cluster).await?;
    if definitions.is_empty() {
        return Ok(out(
            "No CustomResourceDefinition of Trysail's workload kinds is installed: nothing to remove.\n",
        )?);
    }
    let all = cluster.list_everywhere(PODS).await?;
    let pods = all.iter().filter(|pod| is_owned_by_ours(pod)).count();
    let held_pods = all.iter().filter(|pod| !plan::held(pod).own_finalizers.is_empty()).count();
    let fate = match (args.orphan_pods, args.delete_pods) {
        (true, _) => Fate::Orphan,
        (_, true) => Fate::Delete,
        _ => Fate::Unsaid,
    };
    let purge = Purge { definitions: &definitions, pods, held_pods, fate };
    if !args.purge {
        return Ok(out(&format!(
            "Nothing is removed without --purge. `helm uninstall` removes the manager; this stays:\n{}\
             `trysail uninstall --purge --dry-run` tells how it would be removed.\n",
            purge.inventory()
        ))?);
    }
    out(&purge.to_string())?;
    if args.dry_run {
        return Ok(out("Nothing was changed (dry run).\n")?);
    }
    if purge.needs_fate() {
        bail!(
            "pods owned by these objects: {pods}. Say --orphan-pods to leave them running, or --delete-pods to delete them"
        );
    }
    if !args.yes && !confirmed()? {
        bail!("nothing was changed");
    }
    steps::execute(&cluster, &definitions, fate, args.timeout).await?;
    Ok(out("Trysail's workload kinds are removed.\n")?)
}

fn confirmed() -> Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("this needs a confirmation: run it in a terminal, or with --yes");
    }
    out("Go on? Type yes: ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read your answer")?;
    Ok(answer.trim() == "yes")
}

/// Every definition of ours with its objects, owners first.
async fn definitions(cluster: &Cluster) -> Result<Vec<Definition>> {
    let crds = cluster.list_everywhere(CRDS).await?;
    let mut found = plan::in_order(crds.iter().filter_map(plan::definition).collect());
    for definition in &mut found {
        definition.objects = objects(cluster, definition).await?;
    }
    Ok(found)
}

async fn objects(cluster: &Cluster, definition: &Definition) -> Result<Vec<Held>, Failure> {
    match cluster.list_everywhere(definition.resource).await {
        Ok(objects) => Ok(objects.iter().map(plan::held).collect()),
        // A definition that is going already serves nothing.
        Err(Failure { cause: Cause::NotServed, .. }) => Ok(Vec::new()),
        Err(failure) => Err(failure),
    }
}

/// Pods that have an owner of our kinds.
async fn owned_pods(cluster: &Cluster) -> Result<Vec<Held>> {
    let pods = cluster.list_everywhere(PODS).await?;
    Ok(pods.iter().filter(|pod| is_owned_by_ours(pod)).map(plan::held).collect())
}

fn is_owned_by_ours(pod: &Value) -> bool {
    plan::is_owned(pod, |_, group| plan::GROUPS.contains(&group))
}
