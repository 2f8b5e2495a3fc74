//! `uninstall`: tells what `helm uninstall` has left, and with `--purge` removes it in the order of [`plan`].
//!
//! Each step waits until the server shows that the one before has taken effect, so an interrupted run is finished by
//! the next one.

mod plan;

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use kube::api::{DeleteParams, PatchParams, Preconditions, PropagationPolicy};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use trysail_core::{Resource, resource::PODS};

use crate::{
    args::Uninstall,
    cluster::Cluster,
    failure::{Cause, Failure},
    text::{count, note, out},
};
use plan::{Definition, Fate, Held, Purge};

const CRDS: Resource = Resource {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
};

/// How often the server is asked whether a step has taken effect.
const POLL: Duration = Duration::from_millis(500);

/// Tells, asks, and does it.
pub(crate) async fn run(cluster: &Cluster, args: Uninstall) -> Result<()> {
    let cluster = cluster.in_namespace("");
    let definitions = definitions(&cluster).await?;
    if definitions.is_empty() {
        return Ok(out(
            "No CustomResourceDefinition of Trysail's workload kinds is installed: nothing to remove.\n",
        )?);
    }
    let pods = owned_pods(&cluster, &definitions).await?;
    let fate = match (args.orphan_pods, args.delete_pods) {
        (true, _) => Fate::Orphan,
        (_, true) => Fate::Delete,
        _ => Fate::Unsaid,
    };
    let purge = Purge { definitions: &definitions, pods: pods.len(), fate };
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
            "{} depend on these objects: say --orphan-pods to leave them running, or --delete-pods to delete them",
            count(pods.len(), "pod")
        );
    }
    if !args.yes && !confirmed()? {
        bail!("nothing was changed");
    }
    execute(&cluster, &definitions, &pods, fate, args.timeout).await?;
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

/// Pods whose controller is one of the objects.
async fn owned_pods(cluster: &Cluster, definitions: &[Definition]) -> Result<Vec<Held>> {
    let owners: Vec<&str> =
        definitions.iter().flat_map(|d| &d.objects).map(|object| object.uid.as_str()).collect();
    if owners.is_empty() {
        return Ok(Vec::new());
    }
    let owned = |pod: &&Value| {
        let references = pod["metadata"]["ownerReferences"].as_array();
        references.into_iter().flatten().any(|reference| {
            reference["controller"] == true
                && reference["uid"].as_str().is_some_and(|uid| owners.contains(&uid))
        })
    };
    Ok(cluster.list_everywhere(PODS).await?.iter().filter(owned).map(plan::held).collect())
}

async fn execute(
    cluster: &Cluster,
    definitions: &[Definition],
    pods: &[Held],
    fate: Fate,
    timeout: Duration,
) -> Result<()> {
    for definition in definitions {
        for object in definition.objects.iter().filter(|object| !object.own_finalizers.is_empty()) {
            drop_finalizers(cluster, definition.resource, object).await?;
        }
    }
    for definition in definitions {
        delete_objects(cluster, definition, fate, timeout).await?;
    }
    if fate == Fate::Delete {
        wait_for_pods(cluster, pods, timeout).await?;
    }
    for definition in definitions {
        let left = objects(cluster, definition).await?;
        if !left.is_empty() {
            bail!(
                "{} of {} came into being meanwhile; run the command again",
                count(left.len(), "object"),
                definition.name
            );
        }
        delete_definition(cluster, definition, timeout).await?;
    }
    Ok(())
}

/// Removes those finalizers that only our controllers would remove.
async fn drop_finalizers(cluster: &Cluster, resource: Resource, object: &Held) -> Result<()> {
    let cluster = cluster.in_namespace(&object.namespace);
    for _ in 0..5 {
        let current = match cluster.get(resource, &object.name).await {
            Ok(current) => current,
            Err(Failure { cause: Cause::NotFound, .. }) => return Ok(()),
            Err(failure) => return Err(failure.into()),
        };
        let finalizers = current["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let kept: Vec<Value> =
            finalizers.into_iter().filter(|name| !name.as_str().is_some_and(plan::is_ours)).collect();
        let patch = json!({"metadata": {
            "finalizers": kept,
            "uid": object.uid,
            "resourceVersion": current["metadata"]["resourceVersion"],
        }});
        match cluster.patch(resource, &object.name, &patch, &PatchParams::default()).await {
            Ok(_) => return Ok(()),
            Err(Failure { cause: Cause::NotFound, .. }) => return Ok(()),
            Err(Failure { cause: Cause::Conflict(_), .. }) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    bail!(
        "{}/{} keeps changing; stop trysail-manager first (helm uninstall) and run this again",
        object.namespace,
        object.name
    )
}

/// Deletes every object of a definition and waits until they are gone.
async fn delete_objects(
    cluster: &Cluster,
    definition: &Definition,
    fate: Fate,
    timeout: Duration,
) -> Result<()> {
    let policy = match fate {
        Fate::Orphan => PropagationPolicy::Orphan,
        // The owner stays until what it owns is gone, so "gone" means all of it.
        Fate::Delete | Fate::Unsaid => PropagationPolicy::Foreground,
    };
    let deadline = Instant::now() + timeout;
    let mut told = false;
    loop {
        let left = objects(cluster, definition).await?;
        if left.is_empty() {
            if told {
                out(&format!("deleted the objects of {}\n", definition.name))?;
            }
            return Ok(());
        }
        told = true;
        for object in left.iter().filter(|object| !object.deleting) {
            let params = DeleteParams {
                propagation_policy: Some(policy.clone()),
                preconditions: Some(Preconditions { uid: Some(object.uid.clone()), resource_version: None }),
                ..DeleteParams::default()
            };
            let namespaced = cluster.in_namespace(&object.namespace);
            match namespaced.delete(definition.resource, &object.name, &params).await {
                Ok(()) => {}
                // Gone, or replaced by another of that name, which the next round sees.
                Err(Failure { cause: Cause::NotFound | Cause::Conflict(_), .. }) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        if Instant::now() >= deadline {
            bail!(
                "{} of {} are still there after {timeout:?}: {}. Is kube-controller-manager's garbage collector running?",
                count(left.len(), "object"),
                definition.name,
                named(&left)
            );
        }
        sleep(POLL).await;
    }
}

fn named(objects: &[Held]) -> String {
    let some = objects.iter().take(5).map(|object| {
        let held = match object.foreign_finalizers.join(", ") {
            held if held.is_empty() => held,
            held => format!(" (held by {held})"),
        };
        format!("{}/{}{held}", object.namespace, object.name)
    });
    let more = objects.len().saturating_sub(5);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    some.collect::<Vec<_>>().join(", ") + &more
}

/// Waits for one pod after the other: when the last is gone, all are.
async fn wait_for_pods(cluster: &Cluster, pods: &[Held], timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    for pod in pods {
        let cluster = cluster.in_namespace(&pod.namespace);
        loop {
            match cluster.get(PODS, &pod.name).await {
                Err(Failure { cause: Cause::NotFound, .. }) => break,
                Err(failure) => return Err(failure.into()),
                Ok(current) if current["metadata"]["uid"] != pod.uid.as_str() => break,
                Ok(current) if Instant::now() >= deadline => {
                    bail!(
                        "pods are still there after {timeout:?}, such as {}",
                        named(&[plan::held(&current)])
                    )
                }
                Ok(_) => sleep(POLL).await,
            }
        }
    }
    Ok(())
}

async fn delete_definition(cluster: &Cluster, definition: &Definition, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    match cluster.delete(CRDS, &definition.name, &DeleteParams::default()).await {
        Ok(()) | Err(Failure { cause: Cause::NotFound, .. }) => {}
        Err(failure) => return Err(failure.into()),
    }
    loop {
        match cluster.get(CRDS, &definition.name).await {
            Err(Failure { cause: Cause::NotFound, .. }) => break,
            Err(failure) => return Err(failure.into()),
            Ok(_) if Instant::now() >= deadline => {
                bail!("the CustomResourceDefinition {} is still there after {timeout:?}", definition.name)
            }
            Ok(_) => sleep(POLL).await,
        }
    }
    note(&format!("deleted the CustomResourceDefinition {}", definition.name));
    Ok(())
}
