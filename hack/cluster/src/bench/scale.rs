//! How large the bench is: sizes, shares and times of its phases.

use std::time::Duration;

use serde::Serialize;

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// Pods at a fixed point when a subject starts; 0 is the empty cluster.
    pub pods: Vec<usize>,
    /// Pods of each Deployment.
    pub replicas: usize,
    /// Deployments created at once on the empty cluster.
    pub burst: usize,
    /// Deployments that get a new template.
    pub rolling: usize,
    /// Status patches of pods per second, and for how long.
    pub churn_rate: u32,
    /// See `churn_rate`.
    pub churn: Duration,
    /// Jobs created at once on the empty cluster, and pods of each, all of which run at the same time.
    pub jobs: usize,
    /// See `jobs`.
    pub job_pods: usize,
    /// DaemonSets that wait for nodes.
    pub daemon_sets: usize,
    /// Nodes after all have joined; every tenth is lost for a while afterwards.
    pub nodes: usize,
    /// StatefulSets created at once on the empty cluster, and pods of each.
    pub stateful_sets: usize,
    /// See `stateful_sets`.
    pub stateful_replicas: usize,
    /// From quiet to the reading of the memory, so that a runtime can give back what starting took.
    pub settle: Duration,
}

impl Scale {
    /// The sizes that figures are quoted for.
    pub fn full() -> Self {
        Self {
            pods: vec![0, 10_000, 50_000],
            replicas: 100,
            burst: 100,
            rolling: 20,
            churn_rate: 500,
            churn: Duration::from_secs(60),
            jobs: 2_000,
            job_pods: 5,
            daemon_sets: 3,
            nodes: 500,
            stateful_sets: 100,
            stateful_replicas: 20,
            settle: Duration::from_secs(30),
        }
    }

    /// A few minutes: shows that the bench works, and little else.
    pub fn quick() -> Self {
        Self {
            pods: vec![0, 200, 600],
            replicas: 20,
            burst: 10,
            rolling: 2,
            churn_rate: 100,
            churn: Duration::from_secs(10),
            jobs: 40,
            job_pods: 5,
            daemon_sets: 3,
            nodes: 70,
            stateful_sets: 5,
            stateful_replicas: 4,
            settle: Duration::from_secs(5),
        }
    }

    /// Deployments that make up that many pods.
    pub(crate) fn deployments(&self, pods: usize) -> usize {
        pods / self.replicas
    }

    /// The size on which the rolling update and the churn run: the smallest that has pods.
    pub(crate) fn busy_size(&self) -> Option<usize> {
        self.pods.iter().copied().filter(|pods| *pods > 0).min()
    }

    /// The size whose memory is judged: the largest that has pods.
    pub(crate) fn largest(&self) -> Option<usize> {
        self.pods.iter().copied().filter(|pods| *pods > 0).max()
    }

    /// How long so many pods may take to come up or be replaced: 20 a second, which is what the slowest machine
    /// that is of any use manages, and a minute for the start.
    pub(crate) fn patience(pods: usize) -> Duration {
        Duration::from_secs(60 + pods as u64 / 20)
    }
}
