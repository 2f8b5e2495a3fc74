//! `drain`: cordons a node and evicts its pods through the eviction API, so that disruption budgets are kept. Pods
//! of DaemonSets of either face stay. What is refused by a budget is tried again; everything is told as it happens.

mod plan;

use std::time::Duration;

use anyhow::{Result, bail};
use kube::api::PatchParams;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use trysail_core::resource::{NODES, PODS};

use crate::{
    args::Drain,
    cluster::Cluster,
    failure::{Cause, Failure},
    text::{count, note, out},
};
use plan::{Allowed, Fate, fate};

/// How long a budget's refusal is respected before the next attempt, as kubectl does.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is asked whether evicted pods are gone.
const POLL: Duration = Duration::from_secs(1);

/// Drains the node.
pub(crate) async fn run(cluster: &Cluster, args: Drain) -> Result<()> {
    let cluster = cluster.in_namespace("");
    let suffix = if args.dry_run { " (dry run)" } else { "" };
    let node = cluster.get(NODES, &args.node).await?;
    if node["spec"]["unschedulable"] == true {
        out(&format!("node/{} already cordoned\n", args.node))?;
    } else {
        if !args.dry_run {
            let cordon = json!({"spec": {"unschedulable": true}});
            cluster.patch(NODES, &args.node, &cordon, &PatchParams::default()).await?;
        }
        out(&format!("node/{} cordoned{suffix}\n", args.node))?;
    }
    let pods = choose(&cluster, &args).await?;
    if args.dry_run {
        for pod in &pods {
            out(&format!("evicting pod {}{suffix}\n", pod.name()))?;
        }
        return Ok(out(&format!("node/{} drained{suffix}\n", args.node))?);
    }
    evict_all(&cluster, pods, &args).await?;
    Ok(out(&format!("node/{} drained\n", args.node))?)
}

/// A pod that has to go.
struct Going {
    pod: Value,
    is_evicted: bool,
    /// When to ask (again) for its eviction.
    next: Instant,
}

impl Going {
    fn text(&self, field: &str) -> &str {
        self.pod["metadata"][field].as_str().unwrap_or_default()
    }

    fn name(&self) -> String {
        format!("{}/{}", self.text("namespace"), self.text("name"))
    }
}

/// The pods that have to go, or why they may not.
async fn choose(cluster: &Cluster, args: &Drain) -> Result<Vec<Going>> {
    let allowed = Allowed { unmanaged: args.force, local_data: args.delete_emptydir_data };
    let (mut going, mut daemons, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for pod in cluster.list_everywhere_where(PODS, &format!("spec.nodeName={}", args.node)).await? {
        // The server has chosen already; one that does not know the field would have refused.
        if pod["spec"]["nodeName"] != *args.node {
            continue;
        }
        let fate = fate(&pod, allowed);
        let pod = Going { pod, is_evicted: fate == Fate::Wait, next: Instant::now() };
        match fate {
            Fate::Evict | Fate::Wait => going.push(pod),
            Fate::Daemon => daemons.push(pod.name()),
            Fate::Static => {}
            Fate::Refuse(flag) => refused.push(format!("{} (needs {flag})", pod.name())),
        }
    }
    if !daemons.is_empty() {
        note(&format!("pods of DaemonSets stay: {}", daemons.join(", ")));
    }
    if !refused.is_empty() {
        bail!("nothing was evicted; these pods would be lost for good: {}", refused.join(", "));
    }
    Ok(going)
}

/// Asks for the evictions and waits for their effect. Budgets let a few go at a time.
async fn evict_all(cluster: &Cluster, mut going: Vec<Going>, args: &Drain) -> Result<()> {
    let deadline = (!args.timeout.is_zero()).then(|| Instant::now() + args.timeout);
    while !going.is_empty() {
        let mut left = Vec::new();
        for mut pod in going {
            let is_due = !pod.is_evicted && pod.next <= Instant::now();
            if is_due && evict(cluster, &mut pod, args).await? {
                continue;
            }
            if pod.is_evicted && is_gone(cluster, &pod).await? {
                out(&format!("pod/{} evicted\n", pod.text("name")))?;
                continue;
            }
            left.push(pod);
        }
        going = left;
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) && !going.is_empty() {
            let names: Vec<String> = going.iter().map(Going::name).collect();
            bail!(
                "{} still on the node after {:?}: {}",
                count(names.len(), "pod"),
                args.timeout,
                names.join(", ")
            );
        }
        if !going.is_empty() {
            sleep(POLL).await;
        }
    }
    Ok(())
}

/// Asks for one eviction; answers whether the pod is gone already.
async fn evict(cluster: &Cluster, going: &mut Going, args: &Drain) -> Result<bool> {
    let name = going.text("name").to_owned();
    out(&format!("evicting pod {}\n", going.name()))?;
    let mut eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": going.text("namespace")},
        "deleteOptions": {"preconditions": {"uid": going.text("uid")}},
    });
    if let Some(seconds) = args.grace_period {
        eviction["deleteOptions"]["gracePeriodSeconds"] = seconds.into();
    }
    match cluster.in_namespace(going.text("namespace")).post(PODS, &name, "eviction", &eviction).await {
        Ok(()) => going.is_evicted = true,
        // Another pod of that name is none of this node's.
        Err(Failure { cause: Cause::NotFound | Cause::Conflict(_), .. }) => return Ok(true),
        Err(Failure { cause: Cause::TooManyRequests(message), .. }) => {
            note(&format!(
                "pod {} has to wait (next attempt in {}s): {message}",
                going.name(),
                RETRY.as_secs()
            ));
            going.next = Instant::now() + RETRY;
        }
        Err(failure) => return Err(failure.into()),
    }
    Ok(false)
}

async fn is_gone(cluster: &Cluster, going: &Going) -> Result<bool> {
    match cluster.in_namespace(going.text("namespace")).get(PODS, going.text("name")).await {
        Ok(pod) => Ok(pod["metadata"]["uid"] != going.pod["metadata"]["uid"]),
        Err(Failure { cause: Cause::NotFound, .. }) => Ok(true),
        Err(failure) => Err(failure.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    const NODE: &str = "/api/v1/nodes/n1";

    fn pod(owner: &str, node: &str) -> Value {
        let owners =
            json!([{"apiVersion": "apps.trysail.dev/v1", "kind": owner, "uid": "o", "controller": true}]);
        json!({"metadata": {"name": owner.to_lowercase(), "namespace": "shop", "uid": owner, "ownerReferences": owners},
            "spec": {"nodeName": node}, "status": {"phase": "Running"}})
    }

    fn fake() -> Fake {
        Fake::with([
            (NODE, json!({"metadata": {"name": "n1", "uid": "n"}, "spec": {}})),
            ("/api/v1/namespaces/shop/pods/replicaset", pod("ReplicaSet", "n1")),
            ("/api/v1/namespaces/shop/pods/daemonset", pod("DaemonSet", "n1")),
            ("/api/v1/namespaces/shop/pods/job", pod("Job", "n2")),
            // The owner of all of them lives.
            (
                "/apis/apps.trysail.dev/v1/namespaces/shop/owners/o",
                json!({"metadata": {"name": "o", "uid": "o"}}),
            ),
        ])
    }

    fn drain(fake: &Fake, dry_run: bool) -> Result<()> {
        let args = Drain {
            node: "n1".to_owned(),
            force: false,
            delete_emptydir_data: false,
            grace_period: None,
            timeout: Duration::from_secs(30),
            dry_run,
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async { run(&fake.cluster(), args).await })
    }

    #[test]
    fn the_nodes_pods_are_evicted_and_its_daemons_stay() {
        let fake = fake();
        drain(&fake, false).unwrap();
        assert_eq!(fake.get(NODE).unwrap()["spec"]["unschedulable"], true);
        assert_eq!(
            fake.writes(),
            ["PATCH /api/v1/nodes/n1", "POST /api/v1/namespaces/shop/pods/replicaset/eviction"]
        );
        assert!(fake.get("/api/v1/namespaces/shop/pods/replicaset").is_none());
        assert!(fake.get("/api/v1/namespaces/shop/pods/daemonset").is_some());
    }

    #[test]
    fn a_budget_is_waited_for() {
        let fake = fake();
        fake.refuse_evictions(2);
        drain(&fake, false).unwrap();
        let evictions = fake.writes().iter().filter(|write| write.starts_with("POST")).count();
        assert_eq!(evictions, 3);
        let stuck = self::fake();
        stuck.refuse_evictions(99);
        let error = drain(&stuck, false).unwrap_err().to_string();
        assert_eq!(error, "1 pod still on the node after 30s: shop/replicaset");
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let fake = fake();
        drain(&fake, true).unwrap();
        assert!(fake.writes().is_empty(), "{:?}", fake.writes());
    }
}
