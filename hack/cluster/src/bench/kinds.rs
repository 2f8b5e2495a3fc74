//! What happens in the phases of Jobs, DaemonSets and StatefulSets: each kind on an empty cluster of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::client::{Api, STRATEGIC_PATCH};
use super::figures::Phase;
use super::home::Home;
use super::manifests::{self, NODES};
use super::phases::{Leg, finish};
use super::run::Run;
use super::saved;
use super::scale::Scale;
use super::subject::{Controllers, Subject};
use crate::interrupt;
use crate::progress::Progress;

const JOBS: &str = "/apis/batch/v1/namespaces/{}/jobs";
const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/{}/daemonsets";
const STATEFUL_SETS: &str = "/apis/apps/v1/namespaces/{}/statefulsets";

/// How often each lost node is lost.
const FLAPS: usize = 3;
/// How long it stays lost: long enough for a controller to act on it.
const LOST: Duration = Duration::from_secs(2);
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The kinds that make their pods themselves, each measured on an empty cluster of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodMaker {
    Jobs,
    DaemonSets,
    StatefulSets,
}

impl PodMaker {
    fn controllers(self) -> Controllers {
        match self {
            PodMaker::Jobs => Controllers::Jobs,
            PodMaker::DaemonSets => Controllers::DaemonSets,
            PodMaker::StatefulSets => Controllers::StatefulSets,
        }
    }
}

/// One subject on one of the kinds.
pub(crate) fn leg(
    home: &Home,
    scale: &Scale,
    subject: (Subject, Option<&Path>),
    kind: PodMaker,
    progress: &Progress,
) -> Result<Leg> {
    saved::restore(home, scale, 0, progress)?;
    let mut leg = Leg::default();
    let mut run = Run::start(home, subject.0, subject.1, kind.controllers(), true)?;
    run.wait_quiet()?;
    let step = |what: &str, phase: Phase, leg: &mut Leg, go: &mut dyn FnMut(&mut Leg) -> Result<()>| {
        let step = progress.step(format!("{}: {what}", subject.0.name()));
        go(leg)?;
        step.done_with(&leg.summary(phase));
        anyhow::Ok(())
    };
    match kind {
        PodMaker::Jobs => {
            let what = format!("{} Jobs of {} pods", scale.jobs, scale.job_pods);
            step(&what, Phase::Jobs, &mut leg, &mut |leg| jobs(leg, &mut run, scale))?;
        }
        PodMaker::DaemonSets => {
            let what = format!("{} nodes join, {} DaemonSets", scale.nodes, scale.daemon_sets);
            step(&what, Phase::Join, &mut leg, &mut |leg| join(leg, &mut run, scale))?;
            step("every tenth node is lost and returns", Phase::Flap, &mut leg, &mut |leg| {
                flap(leg, &mut run, scale)
            })?;
        }
        PodMaker::StatefulSets => {
            let what = format!("{} StatefulSets of {} pods", scale.stateful_sets, scale.stateful_replicas);
            step(&what, Phase::Stateful, &mut leg, &mut |leg| stateful(leg, &mut run, scale))?;
            step("rolling update of all of them", Phase::StatefulRolling, &mut leg, &mut |leg| {
                stateful_rolling(leg, &mut run, scale)
            })?;
        }
    }
    run.finish(|_| Ok(()))?;
    Ok(leg)
}

/// Owners and the generation at which each is to be done.
type Wanted = BTreeMap<String, u64>;

fn create(api: &Api, path: &str, count: usize, object: impl Fn(usize) -> Value) -> Result<Wanted> {
    let mut wanted = Wanted::new();
    for at in 0..count {
        interrupt::check()?;
        let object = object(at);
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        note(&mut wanted, &api.create(&path.replace("{}", namespace), &object)?);
    }
    Ok(wanted)
}

fn note(wanted: &mut Wanted, object: &Value) {
    let meta = &object["metadata"];
    let text = |field: &str| meta[field].as_str().unwrap_or_default();
    wanted
        .insert(format!("{}/{}", text("namespace"), text("name")), meta["generation"].as_u64().unwrap_or(1));
}

fn jobs(leg: &mut Leg, run: &mut Run<'_>, scale: &Scale) -> Result<()> {
    let pods = scale.jobs * scale.job_pods;
    let mark = run.mark()?;
    let wanted = create(&run.api()?, JOBS, scale.jobs, |at| manifests::job(at, scale.job_pods))?;
    let quiet = finish(run, &wanted, pods)?;
    // Each pod is created, and loses its finalizer when it has been counted.
    let figures = run.figures(&mark, quiet, 2 * pods as u64, scale.job_pods as u64)?;
    leg.end(run, Phase::Jobs, figures)
}

fn join(leg: &mut Leg, run: &mut Run<'_>, scale: &Scale) -> Result<()> {
    let api = run.api()?;
    // Admission made them not-ready, and here is no node lifecycle that finds them ready.
    for at in 0..NODES {
        admit(&api, at)?;
    }
    run.wait_quiet()?;
    run.observer.world().expected_nodes = scale.nodes as u64;
    let mark = run.mark()?;
    let wanted = create(&api, DAEMON_SETS, scale.daemon_sets, manifests::daemon_set)?;
    for at in NODES..scale.nodes {
        interrupt::check()?;
        api.create("/api/v1/nodes", &manifests::node(at))?;
        admit(&api, at)?;
    }
    let pods = scale.daemon_sets * scale.nodes;
    let quiet = finish(run, &wanted, pods)?;
    let figures = run.figures(&mark, quiet, pods as u64, scale.nodes as u64)?;
    leg.end(run, Phase::Join, figures)
}

/// What node lifecycle does to a node whose kubelet is silent for a moment: not ready, tainted, ready again. The
/// pods of a DaemonSet tolerate it, so nothing is to be written.
fn flap(leg: &mut Leg, run: &mut Run<'_>, scale: &Scale) -> Result<()> {
    let api = run.api()?;
    let mark = run.mark()?;
    for _ in 0..FLAPS {
        for ready in [false, true] {
            for at in (0..scale.nodes).step_by(10) {
                interrupt::check()?;
                set_ready(&api, &manifests::node_name(at), ready)?;
            }
            run.idle(LOST)?;
        }
    }
    let quiet = run.wait_quiet()?;
    let figures = run.figures(&mark, quiet, 0, scale.nodes as u64)?;
    leg.end(run, Phase::Flap, figures)
}

fn set_ready(api: &Api, node: &str, ready: bool) -> Result<()> {
    let status = if ready { "True" } else { "False" };
    let condition = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
    api.patch(&format!("/api/v1/nodes/{node}/status"), STRATEGIC_PATCH, &condition)?;
    let taint = |effect: &str| json!({"key": NOT_READY, "effect": effect});
    let taints = if ready { json!(null) } else { json!([taint("NoSchedule"), taint("NoExecute")]) };
    set_taints(api, node, &taints)
}

/// What node lifecycle does to a new node once its kubelet says that it is ready.
fn admit(api: &Api, at: usize) -> Result<()> {
    set_taints(api, &manifests::node_name(at), &json!(null))
}

/// A list in a strategic merge is merged; a null removes it.
fn set_taints(api: &Api, node: &str, taints: &Value) -> Result<()> {
    let patch = json!({"spec": {"taints": taints}});
    api.patch(&format!("/api/v1/nodes/{node}"), STRATEGIC_PATCH, &patch).map(drop)
}

fn stateful(leg: &mut Leg, run: &mut Run<'_>, scale: &Scale) -> Result<()> {
    let pods = scale.stateful_sets * scale.stateful_replicas;
    let mark = run.mark()?;
    let replicas = scale.stateful_replicas;
    let wanted =
        create(&run.api()?, STATEFUL_SETS, scale.stateful_sets, |at| manifests::stateful_set(at, replicas))?;
    let quiet = finish(run, &wanted, pods)?;
    let figures = run.figures(&mark, quiet, pods as u64, replicas as u64)?;
    leg.end(run, Phase::Stateful, figures)
}

fn stateful_rolling(leg: &mut Leg, run: &mut Run<'_>, scale: &Scale) -> Result<()> {
    let (api, pods) = (run.api()?, scale.stateful_sets * scale.stateful_replicas);
    let mark = run.mark()?;
    let mut wanted = Wanted::new();
    for at in 0..scale.stateful_sets {
        let (namespace, name) = manifests::names("db", at);
        let path = format!("{}/{name}", STATEFUL_SETS.replace("{}", &namespace));
        note(&mut wanted, &api.patch(&path, STRATEGIC_PATCH, &manifests::new_revision(2))?);
    }
    let quiet = finish(run, &wanted, pods * 2)?;
    let figures = run.figures(&mark, quiet, 2 * pods as u64, scale.stateful_replicas as u64)?;
    leg.end(run, Phase::StatefulRolling, figures)
}
