//! `why KIND NAME`: what a workload waits for, in words, from the same plan that its controller computes.
//!
//! The controller's memory and the server's last refusal are not in the API; what can be read of them (conditions) is
//! told beside the plan.

mod pods;
mod view;
mod words;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use trysail_core::{
    Key, Object, Resource,
    plan::{Context, Planner},
    pod::Pod,
    resource::{CONTROLLER_REVISIONS, NODES, PERSISTENT_VOLUME_CLAIMS, PODS},
};
use trysail_workloads::{
    daemonset::{self, DaemonSetPlanner},
    deployment::{self, DeploymentPlanner},
    replicaset::{self, ReplicaSetPlanner},
    statefulset::{self, StatefulSetPlanner},
    views::{
        ControllerRevision, DaemonSet, Deployment, Node, PersistentVolumeClaim, ReplicaSet, StatefulSet,
    },
};

use crate::{
    args::{self, Output},
    cluster::Cluster,
    kind,
    kind::{Kind, printed, qualified},
    target::Target,
    text::out,
};
use view::Held;
use words::{Answer, Findings};

/// Prints the answer.
pub(crate) async fn run(cluster: &Cluster, args: args::Why) -> Result<()> {
    let (kind, name, _) = kind::split(&args.workload.words)?;
    let target = Target::find(cluster, kind, name).await?;
    let answer = match target.kind {
        Kind::Deployment => of_deployment(cluster, &target).await?,
        Kind::ReplicaSet | Kind::ReplicationController => of_set(cluster, &target).await?,
        Kind::StatefulSet => of_stateful_set(cluster, &target).await?,
        Kind::DaemonSet => of_daemon_set(cluster, &target).await?,
    };
    let text = match args.output {
        Some(Output::Json) => format!("{:#}\n", answer.to_json()),
        None => answer.to_string(),
    };
    Ok(out(&text)?)
}

/// The whole namespace, because names and owners count beside labels.
async fn read<T: DeserializeOwned>(cluster: &Cluster, resource: Resource) -> Result<Held<T>> {
    let raw = cluster.list_raw(resource, "").await?;
    let objects = raw.iter().map(|object| serde_json::from_str(object.get()));
    let objects = objects.collect::<Result<Vec<T>, _>>();
    objects.map(Held::new).with_context(|| format!("cannot understand one of the {}", qualified(resource)))
}

fn context<M: Default>(now: Timestamp) -> Context<M> {
    Context { now, memory: M::default(), refusal: None }
}

async fn of_deployment(cluster: &Cluster, target: &Target) -> Result<Answer> {
    let planner = DeploymentPlanner::new(target.face);
    let (deployments, sets, pods) = futures::try_join!(
        read::<Deployment>(cluster, planner.resource),
        read::<ReplicaSet>(cluster, planner.sets),
        read::<Pod>(cluster, PODS),
    )?;
    let now = Timestamp::now();
    let key = Key::new(cluster.namespace.as_str(), target.name.as_str());
    let snapshot = deployment::observe(&key, context(now), &deployments, &sets, &pods);
    let snapshot = snapshot.with_context(|| format!("{} has just been deleted", target.printed()))?;
    let plan = planner.plan(&snapshot);
    let own = &snapshot.deployment;
    let mut answer =
        Answer::new(Findings::of(target.printed(), &plan, own.is_observed(), &own.status.conditions));
    let set_planner = ReplicaSetPlanner::replica_sets(target.face);
    for set in &snapshot.sets {
        if let Some(findings) = about_set(set_planner, set, &sets, &pods, now) {
            answer.children.push(findings);
        }
    }
    let uids: Vec<_> = snapshot.sets.iter().map(|set| set.meta.uid.clone()).collect();
    answer.pods = pods::troubled(cluster, &uids).await?;
    Ok(answer)
}

async fn of_set(cluster: &Cluster, target: &Target) -> Result<Answer> {
    let planner = ReplicaSetPlanner { resource: target.resource(), face: target.face };
    let (sets, pods) =
        futures::try_join!(read::<ReplicaSet>(cluster, planner.resource), read::<Pod>(cluster, PODS))?;
    let key = Key::new(cluster.namespace.as_str(), target.name.as_str());
    let snapshot = replicaset::observe(&key, context(Timestamp::now()), &sets, &pods);
    let snapshot = snapshot.with_context(|| format!("{} has just been deleted", target.printed()))?;
    let plan = planner.plan(&snapshot);
    let own = &snapshot.set;
    let mut answer =
        Answer::new(Findings::of(target.printed(), &plan, own.is_observed(), &own.status.conditions));
    answer.pods = pods::troubled(cluster, std::slice::from_ref(&own.meta.uid)).await?;
    Ok(answer)
}

async fn of_stateful_set(cluster: &Cluster, target: &Target) -> Result<Answer> {
    let planner = StatefulSetPlanner::new(target.face);
    let (sets, pods, claims, revisions) = futures::try_join!(
        read::<StatefulSet>(cluster, planner.resource),
        read::<Pod>(cluster, PODS),
        read::<PersistentVolumeClaim>(cluster, PERSISTENT_VOLUME_CLAIMS),
        read::<ControllerRevision>(cluster, CONTROLLER_REVISIONS),
    )?;
    let key = Key::new(cluster.namespace.as_str(), target.name.as_str());
    let views = (&sets, &pods, &claims, &revisions);
    let snapshot = statefulset::observe(planner, &key, context(Timestamp::now()), views);
    let snapshot = snapshot.with_context(|| format!("{} has just been deleted", target.printed()))?;
    let plan = planner.plan(&snapshot);
    let own = &snapshot.set;
    let mut answer =
        Answer::new(Findings::of(target.printed(), &plan, own.is_observed(), &own.status.conditions));
    answer.pods = pods::troubled(cluster, std::slice::from_ref(&own.meta.uid)).await?;
    Ok(answer)
}

async fn of_daemon_set(cluster: &Cluster, target: &Target) -> Result<Answer> {
    let planner = DaemonSetPlanner::new(target.face);
    let (sets, pods, revisions) = futures::try_join!(
        read::<DaemonSet>(cluster, planner.resource),
        read::<Pod>(cluster, PODS),
        read::<ControllerRevision>(cluster, CONTROLLER_REVISIONS),
    )?;
    let nodes = cluster.list_everywhere(NODES).await?;
    let nodes: Result<Vec<Node>, _> = nodes.into_iter().map(serde_json::from_value).collect();
    let nodes = Held::new(nodes.context("cannot understand one of the nodes")?);
    let key = Key::new(cluster.namespace.as_str(), target.name.as_str());
    let now = context(Timestamp::now());
    let snapshot = daemonset::observe(planner, &key, now, &sets, &pods, &nodes, &revisions);
    let snapshot = snapshot.with_context(|| format!("{} has just been deleted", target.printed()))?;
    let plan = planner.plan(&snapshot);
    let own = &snapshot.set;
    let mut answer =
        Answer::new(Findings::of(target.printed(), &plan, own.is_observed(), &own.status.conditions));
    answer.pods = pods::troubled(cluster, std::slice::from_ref(&own.meta.uid)).await?;
    Ok(answer)
}

/// A ReplicaSet of a Deployment, when it has something to tell.
fn about_set(
    planner: ReplicaSetPlanner,
    set: &ReplicaSet,
    sets: &Held<ReplicaSet>,
    pods: &Held<Pod>,
    now: Timestamp,
) -> Option<Findings> {
    let snapshot = replicaset::observe(&set.key(), context(now), sets, pods)?;
    let plan = planner.plan(&snapshot);
    let name = printed(planner.resource, &set.meta.key.name);
    let findings = Findings::of(name, &plan, set.is_observed(), &set.status.conditions);
    (!findings.is_settled()).then_some(findings)
}
