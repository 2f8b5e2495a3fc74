//! What is measured of one phase.

use std::collections::BTreeMap;

use serde::Serialize;

use super::calls::Calls;

/// A part of a run that is measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The subject starts on that many pods at their fixed point, and idles.
    Start(usize),
    /// Many Deployments are created on the empty cluster.
    Burst,
    /// A part of the Deployments gets a new template.
    Rolling,
    /// Pods' status changes at a steady rate.
    Churn,
    /// Many short Jobs are created and finish.
    Jobs,
    /// Nodes join a cluster that has DaemonSets.
    Join,
    /// A part of the nodes is lost and returns.
    Flap,
    /// StatefulSets are created, their pods one after the other.
    Stateful,
    /// All StatefulSets get a new template.
    StatefulRolling,
}

impl Phase {
    /// The name in tables and in JSON.
    pub fn name(self) -> String {
        match self {
            Phase::Start(pods) => format!("start-{pods}"),
            Phase::Burst => "burst".to_owned(),
            Phase::Rolling => "rolling".to_owned(),
            Phase::Churn => "churn".to_owned(),
            Phase::Jobs => "jobs".to_owned(),
            Phase::Join => "join".to_owned(),
            Phase::Flap => "flap".to_owned(),
            Phase::Stateful => "stateful".to_owned(),
            Phase::StatefulRolling => "sts-rolling".to_owned(),
        }
    }
}

impl Serialize for Phase {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

/// The figures of one phase, one subject and one round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// From the cause to the last effect.
    pub seconds: f64,
    /// CPU time of the subject's control group until it was quiet.
    pub cpu_seconds: f64,
    /// CPU time of the API server over the same time.
    pub apiserver_cpu_seconds: f64,
    /// CPU time of the bench itself, which both subjects have beside them.
    pub bench_cpu_seconds: f64,
    /// Share of a core that the subject used while nothing happened (starts only).
    pub idle_cpu: Option<f64>,
    /// Resident memory at the end.
    pub rss: u64,
    /// The part of it that is no file.
    pub rss_anon: u64,
    /// The most that was resident since the subject's start.
    pub rss_peak: u64,
    /// The most that its control group used since then, page cache and kernel memory included.
    pub group_peak: Option<u64>,
    /// Writes but for events.
    pub writes: u64,
    /// The least number of writes that would have done.
    pub minimum_writes: u64,
    /// Pods beyond what the worst Deployment may have at a time.
    pub overshoot: u64,
    /// Status patches per second that were reached (churn only).
    pub rate: Option<f64>,
    /// Whether the subject became quiet in the end.
    pub quiet: bool,
    /// Its requests.
    pub calls: Calls,
}

/// The figures of one subject in one round.
pub type PhaseFigures = BTreeMap<Phase, Figures>;
