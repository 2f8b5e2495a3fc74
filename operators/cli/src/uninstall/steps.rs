//! The steps of a purge, each waiting for its effect.
//!
//! Releasing pods is not left to the garbage collector alone: a collector that has not seen a ReplicaSet yet would let
//! its Deployment go without releasing it, and then delete it as a child without parent, and its pods too. So every
//! object is held by a finalizer of ours until a fresh list shows that nothing refers to its kind any more.

use std::time::Duration;

use anyhow::{Result, bail};
use kube::api::{DeleteParams, PatchParams, Preconditions, PropagationPolicy};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use trysail_core::{
    Resource,
    resource::{CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS},
};

use super::{
    CRDS, objects, owned_pods,
    plan::{self, Definition, Fate, Held},
};
use crate::{
    cluster::Cluster,
    failure::{Cause, Failure},
    text::{count, out},
};

/// Holds an object until what it owns is released.
const HOLD: &str = "trysail.dev/purge";

/// How often the server is asked whether a step has taken effect.
const POLL: Duration = Duration::from_millis(500);

/// How often a write is tried anew when someone else was faster.
const CONFLICT_RETRIES: usize = 5;

/// Does all of it.
pub(super) async fn execute(
    cluster: &Cluster,
    definitions: &[Definition],
    fate: Fate,
    timeout: Duration,
) -> Result<()> {
    let deadline = || Instant::now() + timeout;
    for (at, definition) in definitions.iter().enumerate() {
        let found = objects(cluster, definition).await?;
        if found.is_empty() {
            continue;
        }
        match fate {
            Fate::Orphan => {
                for object in found.iter().filter(|object| !object.deleting) {
                    finalizers(cluster, definition.resource, object, hold).await?;
                }
                delete_all(cluster, definition, &found, PropagationPolicy::Orphan).await?;
                release(cluster, definition, &definitions[at + 1..]).await?;
            }
            // The owner stays until what it owns is gone, so "gone" means all of it.
            Fate::Delete | Fate::Unsaid => {
                delete_all(cluster, definition, &found, PropagationPolicy::Foreground).await?;
            }
        }
        for object in &found {
            finalizers(cluster, definition.resource, object, without_ours).await?;
        }
        gone(cluster, definition, fate, deadline()).await?;
        out(&format!("deleted {} of {}\n", count(found.len(), "object"), definition.name))?;
    }
    // Those of Jobs that were deleted before, too.
    let_pods_go(cluster).await?;
    if fate == Fate::Delete {
        wait_for_pods(cluster, deadline()).await?;
    }
    for definition in definitions {
        let left = objects(cluster, definition).await?.len();
        if left > 0 {
            bail!(
                "{} of {} came into being meanwhile; run the command again",
                count(left, "object"),
                definition.name
            );
        }
        delete_definition(cluster, definition, deadline()).await?;
    }
    Ok(())
}

fn hold(mut finalizers: Vec<Value>) -> Vec<Value> {
    if !finalizers.iter().any(|name| name == HOLD) {
        finalizers.push(HOLD.into());
    }
    finalizers
}

fn without_ours(mut finalizers: Vec<Value>) -> Vec<Value> {
    finalizers.retain(|name| !name.as_str().is_some_and(plan::is_ours));
    finalizers
}

/// Changes the finalizers of one object; one that is gone needs no change.
async fn finalizers(
    cluster: &Cluster,
    resource: Resource,
    object: &Held,
    change: impl Fn(Vec<Value>) -> Vec<Value>,
) -> Result<()> {
    update(&cluster.in_namespace(&object.namespace), resource, object, |current| {
        let before = current["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let after = change(before.clone());
        (after != before).then(|| json!({ "finalizers": after }))
    })
    .await
}

/// Writes metadata of one incarnation of an object, trying again when someone else was faster.
async fn update(
    cluster: &Cluster,
    resource: Resource,
    object: &Held,
    change: impl Fn(&Value) -> Option<Value>,
) -> Result<()> {
    for _ in 0..CONFLICT_RETRIES {
        let current = match cluster.get(resource, &object.name).await {
            Ok(current) if current["metadata"]["uid"] == object.uid.as_str() => current,
            Ok(_) | Err(Failure { cause: Cause::NotFound, .. }) => return Ok(()),
            Err(failure) => return Err(failure.into()),
        };
        let Some(metadata) = change(&current) else { return Ok(()) };
        let patch = crate::edit::with_precondition(json!({ "metadata": metadata }), &current);
        match cluster.patch(resource, &object.name, &patch, &PatchParams::default()).await {
            Ok(_) | Err(Failure { cause: Cause::NotFound, .. }) => return Ok(()),
            Err(Failure { cause: Cause::Conflict(_), .. }) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    bail!("{}/{} keeps changing; run `helm uninstall` first, then this again", object.namespace, object.name)
}

async fn delete_all(
    cluster: &Cluster,
    definition: &Definition,
    found: &[Held],
    policy: PropagationPolicy,
) -> Result<()> {
    for object in found.iter().filter(|object| !object.deleting) {
        let params = DeleteParams {
            propagation_policy: Some(policy.clone()),
            preconditions: Some(Preconditions { uid: Some(object.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        let cluster = cluster.in_namespace(&object.namespace);
        match cluster.delete(definition.resource, &object.name, &params).await {
            // Gone, or replaced by another one of that name, which the final check finds.
            Ok(()) | Err(Failure { cause: Cause::NotFound | Cause::Conflict(_), .. }) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Ok(())
}

/// Removes our finalizers from all pods: by them the pods of Jobs wait to be counted, and nobody counts any more.
async fn let_pods_go(cluster: &Cluster) -> Result<()> {
    for pod in cluster.list_everywhere(PODS).await?.iter().map(plan::held) {
        if !pod.own_finalizers.is_empty() {
            finalizers(cluster, PODS, &pod, without_ours).await?;
        }
    }
    Ok(())
}

/// What our kinds own beside each other.
const OWNED: [Resource; 3] = [PODS, PERSISTENT_VOLUME_CLAIMS, CONTROLLER_REVISIONS];

/// Takes the kind out of the owner references of what it owns, until a list shows none.
async fn release(cluster: &Cluster, owner: &Definition, others: &[Definition]) -> Result<()> {
    let kinds: Vec<Resource> = others.iter().map(|other| other.resource).chain(OWNED).collect();
    loop {
        let mut owned = Vec::new();
        for &kind in &kinds {
            let all = cluster.list_everywhere(kind).await?;
            let all = all.iter().filter(|object| plan::released(object, owner).is_some());
            owned.extend(all.map(|object| (kind, plan::held(object))));
        }
        if owned.is_empty() {
            return Ok(());
        }
        for (kind, object) in owned {
            update(&cluster.in_namespace(&object.namespace), kind, &object, |current| {
                plan::released(current, owner).map(|owners| json!({ "ownerReferences": owners }))
            })
            .await?;
        }
    }
}

/// Waits until no object of the definition is left.
async fn gone(cluster: &Cluster, definition: &Definition, fate: Fate, deadline: Instant) -> Result<()> {
    loop {
        if fate != Fate::Orphan {
            // Their owner waits for them.
            let_pods_go(cluster).await?;
        }
        let left = objects(cluster, definition).await?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "{} of {} are still there: {}. Is kube-controller-manager's garbage collector running?",
                count(left.len(), "object"),
                definition.name,
                named(&left)
            );
        }
        sleep(POLL).await;
    }
}

fn named(objects: &[Held]) -> String {
    const SHOWN: usize = 5;
    let some = objects.iter().take(SHOWN).map(|object| {
        let held = match object.foreign_finalizers.join(", ") {
            held if held.is_empty() => held,
            held => format!(" (held by {held})"),
        };
        format!("{}/{}{held}", object.namespace, object.name)
    });
    let more = objects.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    some.collect::<Vec<_>>().join(", ") + &more
}

/// Waits for one pod after the other, listing anew until there is none: the list may be long.
async fn wait_for_pods(cluster: &Cluster, deadline: Instant) -> Result<()> {
    loop {
        let pods = owned_pods(cluster).await?;
        let Some(pod) = pods.first() else { return Ok(()) };
        let cluster = cluster.in_namespace(&pod.namespace);
        loop {
            match cluster.get(PODS, &pod.name).await {
                Ok(current) if current["metadata"]["uid"] == pod.uid.as_str() => {}
                Ok(_) | Err(Failure { cause: Cause::NotFound, .. }) => break,
                Err(failure) => return Err(failure.into()),
            }
            if Instant::now() >= deadline {
                bail!("{} are still there: {}", count(pods.len(), "pod"), named(&pods));
            }
            sleep(POLL).await;
        }
    }
}

async fn delete_definition(cluster: &Cluster, definition: &Definition, deadline: Instant) -> Result<()> {
    match cluster.delete(CRDS, &definition.name, &DeleteParams::default()).await {
        Ok(()) | Err(Failure { cause: Cause::NotFound, .. }) => {}
        Err(failure) => return Err(failure.into()),
    }
    loop {
        match cluster.get(CRDS, &definition.name).await {
            Err(Failure { cause: Cause::NotFound, .. }) => break,
            Err(failure) => return Err(failure.into()),
            Ok(_) if Instant::now() >= deadline => {
                bail!("the CustomResourceDefinition {} is still there", definition.name)
            }
            Ok(_) => sleep(POLL).await,
        }
    }
    Ok(out(&format!("deleted the CustomResourceDefinition {}\n", definition.name))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fake::Fake, uninstall::definitions};

    const CRD: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    const WEB: &str = "/apis/apps.trysail.dev/v1/namespaces/shop/deployments/web";
    const POD: &str = "/api/v1/namespaces/shop/pods/web-a-1";
    const FOREIGN: &str = "/api/v1/namespaces/shop/pods/other";

    fn crd(kind: &str) -> Value {
        let plural = format!("{}s", kind.to_lowercase());
        json!({"metadata": {"name": format!("{plural}.apps.trysail.dev"), "uid": kind},
            "spec": {"group": "apps.trysail.dev", "names": {"kind": kind, "plural": plural},
                "versions": [{"name": "v1", "served": true}]}})
    }

    fn object(name: &str, owner: Option<(&str, &str, &str)>) -> Value {
        let owners = owner.map(|(group, kind, uid)| {
            json!([{"apiVersion": format!("{group}/v1"), "kind": kind, "name": uid, "uid": uid, "controller": true}])
        });
        json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "ownerReferences": owners}})
    }

    fn cluster_with_a_live_deployment() -> Fake {
        let own = "apps.trysail.dev";
        let mut web = object("web", None);
        web["metadata"]["finalizers"] = json!(["trysail.dev/of-the-manager"]);
        Fake::with([
            (
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/replicasets.apps.trysail.dev",
                crd("ReplicaSet"),
            ),
            (
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/deployments.apps.trysail.dev",
                crd("Deployment"),
            ),
            (WEB, web),
            (
                "/apis/apps.trysail.dev/v1/namespaces/shop/replicasets/web-a",
                object("web-a", Some((own, "Deployment", "web"))),
            ),
            (POD, object("web-a-1", Some((own, "ReplicaSet", "web-a")))),
            ("/apis/apps/v1/namespaces/shop/replicasets/native", object("native", None)),
            (FOREIGN, object("other", Some(("apps", "ReplicaSet", "native")))),
        ])
    }

    fn purge(fake: &Fake, fate: Fate) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let cluster = fake.cluster().in_namespace("");
            let definitions = definitions(&cluster).await?;
            assert_eq!(definitions.len(), 2);
            execute(&cluster, &definitions, fate, Duration::from_secs(5)).await
        })
    }

    /// The collector of this server lets an owner go without having seen its children, then deletes them.
    #[test]
    fn released_pods_outlive_a_collector_that_lags() {
        let fake = cluster_with_a_live_deployment();
        let foreign = fake.get(FOREIGN);
        purge(&fake, Fate::Orphan).unwrap();
        let pod = fake.get(POD).expect("the pod still runs");
        assert_eq!(pod["metadata"]["ownerReferences"], json!([]));
        assert_eq!(fake.get(FOREIGN), foreign, "pods of others are not touched");
        for gone in [
            WEB,
            &format!("{CRD}/deployments.apps.trysail.dev"),
            &format!("{CRD}/replicasets.apps.trysail.dev"),
        ] {
            assert_eq!(fake.get(gone), None, "{gone}");
        }
    }

    #[test]
    fn pods_go_when_that_is_said_and_those_of_others_stay() {
        let fake = cluster_with_a_live_deployment();
        purge(&fake, Fate::Delete).unwrap();
        assert_eq!(fake.get(POD), None);
        assert!(fake.get(FOREIGN).is_some());
        let writes = fake.writes();
        let at = |path: &str| writes.iter().position(|write| write == &format!("DELETE {path}"));
        assert!(at(WEB) < at(&format!("{CRD}/deployments.apps.trysail.dev")), "{writes:?}");
    }

    /// An interrupted run leaves owners held; the next one must not let them go before their pods are released.
    #[test]
    fn a_second_run_finishes_what_the_first_began() {
        let fake = cluster_with_a_live_deployment();
        // The first run gets as far as holding and deleting the Deployment.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cluster = fake.cluster().in_namespace("");
            let deployments = &definitions(&cluster).await.unwrap()[0];
            let found = objects(&cluster, deployments).await.unwrap();
            finalizers(&cluster, deployments.resource, &found[0], hold).await.unwrap();
            delete_all(&cluster, deployments, &found, PropagationPolicy::Orphan).await.unwrap();
        });
        assert!(fake.get(WEB).is_some(), "held");
        purge(&fake, Fate::Orphan).unwrap();
        assert!(fake.get(POD).is_some());
        assert_eq!(fake.get(WEB), None);
    }

    const BATCH: &str = "/apis/batch.trysail.dev/v1/namespaces/shop";
    const JOB_POD: &str = "/api/v1/namespaces/shop/pods/pi-1-a";
    const SET_POD: &str = "/api/v1/namespaces/shop/pods/db-0";
    const CLAIM: &str = "/api/v1/namespaces/shop/persistentvolumeclaims/data-db-0";
    const REVISION: &str = "/apis/apps/v1/namespaces/shop/controllerrevisions/db-a";

    /// A CronJob's Job in the middle of its work, and a StatefulSet.
    fn cluster_with_a_live_job() -> Fake {
        let (apps, batch) = ("apps.trysail.dev", "batch.trysail.dev");
        let definition = |group: &str, kind: &str| {
            let mut crd = crd(kind);
            crd["spec"]["group"] = group.into();
            crd["metadata"]["name"] = format!("{}s.{group}", kind.to_lowercase()).into();
            crd
        };
        let mut job_pod = object("pi-1-a", Some((batch, "Job", "pi-1")));
        job_pod["metadata"]["finalizers"] = json!(["example.com/x", "batch.trysail.dev/job-tracking"]);
        let mut left_over = object("left-over", None);
        left_over["metadata"]["finalizers"] = json!(["batch.trysail.dev/job-tracking"]);
        Fake::with([
            (leaked(&format!("{CRD}/cronjobs.{batch}")), definition(batch, "CronJob")),
            (leaked(&format!("{CRD}/jobs.{batch}")), definition(batch, "Job")),
            (leaked(&format!("{CRD}/statefulsets.{apps}")), definition(apps, "StatefulSet")),
            (leaked(&format!("{BATCH}/cronjobs/pi")), object("pi", None)),
            (leaked(&format!("{BATCH}/jobs/pi-1")), object("pi-1", Some((batch, "CronJob", "pi")))),
            (JOB_POD, job_pod),
            ("/api/v1/namespaces/shop/pods/left-over", left_over),
            ("/apis/apps.trysail.dev/v1/namespaces/shop/statefulsets/db", object("db", None)),
            (SET_POD, object("db-0", Some((apps, "StatefulSet", "db")))),
            (CLAIM, object("data-db-0", Some((apps, "StatefulSet", "db")))),
            (REVISION, object("db-a", Some((apps, "StatefulSet", "db")))),
        ])
    }

    fn leaked(text: &str) -> &'static str {
        text.to_owned().leak()
    }

    fn purge_live_job(fake: &Fake, fate: Fate, timeout: Duration) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let cluster = fake.cluster().in_namespace("");
            let definitions = definitions(&cluster).await?;
            assert_eq!(definitions.len(), 3);
            execute(&cluster, &definitions, fate, timeout).await
        })
    }

    /// Of a Job's pods somebody else's finalizer alone remains; nobody waits for a count that never comes. What a
    /// StatefulSet owns is left to whoever comes next, its claims first of all.
    #[test]
    fn pods_of_a_live_job_are_let_go() {
        let fake = cluster_with_a_live_job();
        purge_live_job(&fake, Fate::Orphan, Duration::from_secs(5)).unwrap();
        let pod = fake.get(JOB_POD).expect("the pod still runs");
        assert_eq!(pod["metadata"]["finalizers"], json!(["example.com/x"]));
        for path in [JOB_POD, SET_POD, CLAIM, REVISION] {
            let left = fake.get(path).expect(path);
            assert_eq!(left["metadata"]["ownerReferences"], json!([]), "{path}");
            assert_eq!(left["metadata"]["deletionTimestamp"], Value::Null, "{path}");
        }
        let left_over = fake.get("/api/v1/namespaces/shop/pods/left-over").unwrap();
        assert_eq!(left_over["metadata"]["finalizers"], json!([]), "of a Job that was deleted before");
    }

    /// What is in the way is named, and who put it there.
    #[test]
    fn nothing_waits_for_a_pod_that_nobody_counts() {
        let fake = cluster_with_a_live_job();
        let error = purge_live_job(&fake, Fate::Delete, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("shop/pi-1-a (held by example.com/x)"), "{error}");
        let pod = fake.get(JOB_POD).unwrap();
        assert_eq!(
            pod["metadata"]["finalizers"],
            json!(["example.com/x"]),
            "that is for somebody else to remove"
        );

        let fake = cluster_with_a_live_job();
        fake.change(JOB_POD, |pod| pod["metadata"]["finalizers"] = json!(["batch.trysail.dev/job-tracking"]));
        purge_live_job(&fake, Fate::Delete, Duration::from_secs(5)).unwrap();
        for path in [JOB_POD, SET_POD, CLAIM, REVISION] {
            assert_eq!(fake.get(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_held_by_others_is_named_when_time_is_up() {
        let mut held = object("web", None);
        held["metadata"]["finalizers"] = json!(["example.com/backup"]);
        let fake = Fake::with([
            (
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/deployments.apps.trysail.dev",
                crd("Deployment"),
            ),
            (WEB, held),
        ]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async {
            let cluster = fake.cluster().in_namespace("");
            let definitions = definitions(&cluster).await.unwrap();
            execute(&cluster, &definitions, Fate::Delete, Duration::ZERO).await.unwrap_err()
        });
        assert!(error.to_string().contains("shop/web (held by example.com/backup)"), "{error}");
    }
}
