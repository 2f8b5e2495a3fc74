//! The verbs of `rollout` and `set image`: read, let [`status`](mod@status), [`history`] or [`change`] judge, write,
//! tell. Deployments keep their history in ReplicaSets, the other kinds in ControllerRevisions.

pub(crate) mod change;
mod controller_revisions;
mod daemon_set;
pub(crate) mod history;
mod stateful_set;
pub(crate) mod status;
mod watch;

use anyhow::{Result, anyhow, bail};
use jiff::Timestamp;
use serde_json::Value;
use trysail_core::resource::CONTROLLER_REVISIONS;

use crate::{
    args,
    cluster::Cluster,
    image, kind,
    kind::Kind,
    pods,
    target::{Changed, DryRun, Target},
    text::{indented, note, out},
};
use history::{History, Undo};

/// Field managers, one per group of verbs, as kubectl names its own.
const ROLLOUT: &str = "trysail-rollout";
const SET: &str = "trysail-set";

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

async fn find(cluster: &Cluster, workload: &args::Workload, verb: &str) -> Result<Target> {
    let (kind, name, _) = kind::split(&workload.words)?;
    let target = Target::find(cluster, kind, name).await?;
    target.must_roll_out(verb)?;
    Ok(target)
}

/// `rollout status`
pub(crate) async fn status(cluster: &Cluster, args: args::Status) -> Result<()> {
    let target = find(cluster, &args.workload, "rollout status").await?;
    watch::until_done(cluster, &target, &args).await
}

/// `rollout history`
pub(crate) async fn history(cluster: &Cluster, args: args::History) -> Result<()> {
    let target = find(cluster, &args.workload, "rollout history").await?;
    let history = read_history(cluster, &target).await?;
    let printed = target.printed();
    let text = match (args.output, args.revision) {
        (Some(args::Output::Json), revision) => format!("{:#}\n", history.to_json(revision)?),
        (None, 0) => format!("{printed}\n{}", history.table()),
        (None, revision) => {
            let template = indented(&history.template(revision)?, 2);
            format!("{printed} with revision #{revision}\nPod Template:\n{template}")
        }
    };
    Ok(out(&text)?)
}

async fn read_history(cluster: &Cluster, target: &Target) -> Result<History> {
    let selector = pods::selector(target)?.to_string();
    if target.kind == Kind::Deployment {
        let sets = cluster.list(Kind::ReplicaSet.resource(target.face), &selector).await?;
        return Ok(History::new(&target.object, sets));
    }
    let records = cluster.list(CONTROLLER_REVISIONS, &selector).await?;
    Ok(History::of_records(&target.object, records))
}

/// `rollout undo`
pub(crate) async fn undo(cluster: &Cluster, args: args::Undo) -> Result<()> {
    let mut target = find(cluster, &args.change.workload, "rollout undo").await?;
    let printed = target.printed();
    if target.object["metadata"]["annotations"][LAST_APPLIED].is_string() {
        note(&format!(
            "Warning: {printed} is managed with 'kubectl apply', whose memory of it ({LAST_APPLIED}) is not rolled \
             back: the next apply may bring the present template back. Apply your previous file instead."
        ));
    }
    let dry_run = args.change.dry_run.strategy;
    if dry_run == DryRun::Client {
        let history = read_history(cluster, &target).await?;
        let (revision, _) = history.target(target.kind.singular(), &target.name, args.to_revision)?;
        let template = indented(&history.template(revision)?, 2);
        return Ok(out(&format!("{printed} Pod Template of revision #{revision}:\n{template}"))?);
    }
    let mut skipped = None;
    let shown = target.clone();
    target
        .change(cluster, ROLLOUT, dry_run, async |object: &Value| {
            let now = Target { object: object.clone(), ..shown.clone() };
            match history::undo(object, &read_history(cluster, &now).await?, args.to_revision)? {
                Undo::Change(wished) => Ok(Some(wished)),
                Undo::Skipped(revision) => {
                    skipped = Some(revision);
                    Ok(None)
                }
            }
        })
        .await?;
    let said = skipped.map_or("rolled back".to_owned(), |revision| {
        format!("skipped rollback (current template already matches revision {revision})")
    });
    Ok(out(&format!("{printed} {said}{}\n", dry_run.suffix()))?)
}

/// `rollout pause`
pub(crate) async fn pause(cluster: &Cluster, args: args::Change) -> Result<()> {
    change(cluster, &args, "rollout pause", "paused", change::pause).await
}

/// `rollout resume`
pub(crate) async fn resume(cluster: &Cluster, args: args::Change) -> Result<()> {
    change(cluster, &args, "rollout resume", "resumed", change::resume).await
}

/// `rollout restart`
pub(crate) async fn restart(cluster: &Cluster, args: args::Change) -> Result<()> {
    let now = Timestamp::now();
    change(cluster, &args, "rollout restart", "restarted", |object| change::restart(object, now)).await
}

async fn change(
    cluster: &Cluster,
    args: &args::Change,
    verb: &str,
    done: &str,
    wish: impl Fn(&Value) -> Result<Value>,
) -> Result<()> {
    let mut target = find(cluster, &args.workload, verb).await?;
    let dry_run = args.dry_run.strategy;
    let subject = format!("{} \"{}\"", kind::qualified(target.resource()), target.name);
    let wish = |object: &Value| wish(object).map(Some).map_err(|error| anyhow!("{subject} {error}"));
    target.change(cluster, ROLLOUT, dry_run, async |object: &Value| wish(object)).await?;
    Ok(out(&format!("{} {done}{}\n", target.printed(), dry_run.suffix()))?)
}

/// `set image`
pub(crate) async fn set_image(cluster: &Cluster, args: args::Image) -> Result<()> {
    let (kind, name, updates) = kind::split(&args.words)?;
    if name.contains('=') {
        bail!("\"{name}\" is an image where the workload's name should be; write KIND/NAME CONTAINER=IMAGE");
    }
    let updates = image::parse(updates)?;
    let mut target = Target::find(cluster, kind, name).await?;
    let dry_run = args.dry_run.strategy;
    let changed = target
        .change(cluster, SET, dry_run, async |object: &Value| image::set(object, &updates).map(Some))
        .await?;
    let printed = target.printed();
    match changed {
        Changed::Yes => Ok(out(&format!("{printed} image updated{}\n", dry_run.suffix()))?),
        // kubectl prints nothing where nothing changed, and scripts may rely on it.
        Changed::No => {
            note(&format!("note: {printed} has these images already"));
            Ok(())
        }
    }
}
