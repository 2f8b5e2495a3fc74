//! The slim pod that workload controllers read, and the predicates upstream's controllers share.

mod details;
mod wire;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::{Meta, Symbol, slim_object};

pub use details::{
    CONTROLLER_REVISION_HASH, CRON_JOB_SCHEDULED_TIMESTAMP, ContainerState, JOB_COMPLETION_INDEX,
    JOB_CONTROLLER_UID, JOB_INDEX_FAILURE_COUNT, JOB_INDEX_IGNORED_FAILURE_COUNT, JOB_TRACKING,
    JOB_UNCOUNTED, LEGACY_JOB_CONTROLLER_UID, PodCondition, PodDetails, Terminated,
};

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Default)]
pub enum Phase {
    /// Accepted, not all containers started.
    #[default]
    Pending,
    /// At least one container runs, starts or restarts.
    Running,
    /// Every container ended well.
    Succeeded,
    /// Every container ended, at least one badly.
    Failed,
    /// The node could not be asked, or a phase newer than this program.
    #[serde(other)]
    Unknown,
}

/// What decisions read of a pod; everything else is skipped while decoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Metadata.
    pub meta: Meta,
    /// Empty while unscheduled.
    pub node: Symbol,
    /// `status.phase`.
    pub phase: Phase,
    /// Since when the Ready condition is True.
    pub ready_since: Option<Timestamp>,
    /// `controller.kubernetes.io/pod-deletion-cost`; 0 when absent or malformed.
    pub deletion_cost: i32,
    /// Largest restart count of any ordinary container.
    pub restarts: i32,
    /// Largest restart count of any restartable init container ("sidecar").
    pub sidecar_restarts: i32,
    /// What only some controllers read, for the pods that may be theirs.
    pub details: Option<Box<PodDetails>>,
}

slim_object!(Pod);

impl Pod {
    /// Neither finished nor being deleted: the pods that count as replicas.
    pub fn is_active(&self) -> bool {
        !self.is_terminal() && !self.meta.is_terminating()
    }

    /// Finished, well or badly.
    pub fn is_terminal(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Being deleted and not finished yet: it still holds its resources.
    pub fn is_terminating(&self) -> bool {
        self.meta.is_terminating() && !self.is_terminal()
    }

    /// The Ready condition is True.
    pub fn is_ready(&self) -> bool {
        self.ready_since.is_some()
    }

    /// Ready for at least `min_ready_seconds`.
    pub fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.available_at(min_ready_seconds).is_some_and(|at| at <= now)
    }

    /// When the pod becomes available if it stays ready; `None` while it is not ready.
    pub fn available_at(&self, min_ready_seconds: i32) -> Option<Timestamp> {
        let since = self.ready_since?;
        if min_ready_seconds <= 0 {
            // With no waiting time a ready pod is available even if its node's clock runs ahead of ours.
            return Some(Timestamp::MIN);
        }
        since.checked_add(SignedDuration::from_secs(min_ready_seconds.into())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::JobReference;

    fn pod(json: &str) -> Pod {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_pod_is_read_with_everything_else_skipped() {
        let pod = pod(r#"{"apiVersion":"v1","kind":"Pod",
            "metadata":{"name":"p","namespace":"n","uid":"u","resourceVersion":"7",
              "annotations":{"controller.kubernetes.io/pod-deletion-cost":"-5","big":"x"}},
            "spec":{"nodeName":"w1","initContainers":[{"name":"i"},{"name":"s","restartPolicy":"Always"}],
              "containers":[{"name":"c","image":"nginx"}]},
            "status":{"phase":"Running","conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}],
              "containerStatuses":[{"name":"c","restartCount":2}],
              "initContainerStatuses":[{"name":"i","restartCount":9},{"name":"s","restartCount":1}]}}"#);
        assert_eq!((pod.deletion_cost, pod.restarts, pod.sidecar_restarts), (-5, 2, 1));
        assert_eq!((pod.node.as_str(), pod.phase), ("w1", Phase::Running));
        let ready = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
        assert_eq!(pod.ready_since, Some(ready));
        assert!(!pod.is_available(10, ready + SignedDuration::from_secs(9)));
        assert!(pod.is_available(10, ready + SignedDuration::from_secs(10)));
    }

    /// A node's clock may run ahead of ours: with nothing to wait for, ready is available.
    #[test]
    fn without_min_ready_seconds_ready_is_available_at_once() {
        let pod = pod(r#"{"metadata":{"name":"p"},"status":{"conditions":[
            {"type":"Ready","status":"True","lastTransitionTime":"2030-01-01T00:00:00Z"}]}}"#);
        assert!(pod.is_available(0, "2026-01-01T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn a_bare_pod_and_a_phase_of_the_future_are_read() {
        assert_eq!(pod(r#"{"metadata":{"name":"p"}}"#).phase, Phase::Pending);
        assert_eq!(pod(r#"{"metadata":{"name":"p"},"status":{"phase":"Dreaming"}}"#).phase, Phase::Unknown);
        let malformed =
            r#"{"metadata":{"name":"p","annotations":{"controller.kubernetes.io/pod-deletion-cost":"1e9"}}}"#;
        assert_eq!(pod(malformed).deletion_cost, 0);
    }

    const TRACKED: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"n",
        "labels":{"batch.kubernetes.io/controller-uid":"j"},"deletionGracePeriodSeconds":30,
        "ownerReferences":[{"apiVersion":"batch/v1","kind":"Job","name":"load","uid":"j","controller":true}],
        "finalizers":["batch.kubernetes.io/job-tracking"],
        "annotations":{"batch.kubernetes.io/job-completion-index":"3","batch.kubernetes.io/job-index-failure-count":"1",
          "big":"x"}},
      "spec":{"hostname":"p-3","subdomain":"db","containers":[{"name":"c"}],"initContainers":[{"name":"i","restartPolicy":"Always"}],
        "volumes":[{"name":"tmp","emptyDir":{}},{"name":"data","persistentVolumeClaim":{"claimName":"data-p-3"}}],
        "affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[
          {"matchExpressions":[{"key":"a","operator":"Exists"}],
           "matchFields":[{"key":"metadata.name","operator":"In","values":["w1"]}]}]}}}},
      "status":{"phase":"Failed","reason":"Evicted","startTime":"2026-01-01T00:00:00Z",
        "conditions":[{"type":"DisruptionTarget","status":"True","reason":"EvictionByEvictionAPI","message":"Eviction API",
          "lastTransitionTime":"2026-01-01T00:00:05Z"},{"type":"Ready","status":"False"}],
        "containerStatuses":[{"name":"c","restartCount":2,
          "state":{"terminated":{"exitCode":42,"finishedAt":"2026-01-01T00:00:09Z"}}}],
        "initContainerStatuses":[{"name":"i","restartCount":3,"state":{"running":{}}}]}}"#;

    #[test]
    fn the_details_of_a_job_s_pod_are_read() {
        let pod = pod(TRACKED);
        let details = pod.details.unwrap();
        let annotations: Vec<_> = details.annotations.iter().collect();
        assert_eq!(annotations, [(JOB_COMPLETION_INDEX, "3"), (JOB_INDEX_FAILURE_COUNT, "1")]);
        assert_eq!(details.finalizers, ["batch.kubernetes.io/job-tracking"]);
        assert_eq!((details.hostname.as_str(), details.subdomain.as_str()), ("p-3", "db"));
        assert_eq!(details.claims, [("data".into(), "data-p-3".into())]);
        assert_eq!((details.target_node.as_str(), details.reason.as_str()), ("w1", "Evicted"));
        assert_eq!(details.start_time, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        let disrupted = details.condition("DisruptionTarget").unwrap();
        assert_eq!(
            (disrupted.reason.as_str(), &*disrupted.message),
            ("EvictionByEvictionAPI", "Eviction API")
        );
        assert!(disrupted.is_true() && !details.condition("Ready").unwrap().is_true());
        let finished_at = Some("2026-01-01T00:00:09Z".parse().unwrap());
        let ended = ContainerState {
            name: "c".into(),
            init: false,
            sidecar: false,
            terminated: Some(Terminated { exit_code: 42, finished_at }),
        };
        assert_eq!(
            details.containers,
            [ended, ContainerState { name: "i".into(), init: true, sidecar: true, terminated: None }]
        );
        assert_eq!((pod.restarts, details.total_restarts, pod.phase), (2, 5, Phase::Failed));
        let job = JobReference { api_version: "batch/v1".into(), name: "load".into() };
        assert_eq!((details.job, details.grace_seconds), (Some(job), 30));
    }

    /// Most pods of a cluster pay for one empty pointer only.
    #[test]
    fn only_pods_that_may_need_them_keep_details() {
        for (metadata, detailed) in [
            (r#""labels":{"app":"web"},"finalizers":["example.com/x"]"#, false),
            (r#""labels":{"controller-revision-hash":"h"}"#, true),
            (r#""labels":{"controller-uid":"u"}"#, true),
            (r#""labels":{"batch.kubernetes.io/controller-uid":"u"}"#, true),
            (r#""finalizers":["batch.kubernetes.io/job-tracking"]"#, true),
            (r#""finalizers":["batch.trysail.dev/job-tracking"]"#, true),
            (r#""ownerReferences":[{"uid":"u","kind":"Job","name":"j","controller":true}]"#, true),
            (r#""ownerReferences":[{"uid":"u","kind":"Job","name":"j"}]"#, false),
        ] {
            let metadata = format!(r#""metadata":{{"name":"p",{metadata}}}"#);
            let status = r#""spec":{"nodeName":"w1","hostname":"h"},"status":{"phase":"Running"}"#;
            for text in [format!("{{{metadata},{status}}}"), format!("{{{status},{metadata}}}")] {
                let pod = pod(&text);
                assert_eq!(
                    pod.details.as_ref().map(|details| details.hostname.as_str()),
                    detailed.then_some("h")
                );
                assert_eq!((pod.node.as_str(), pod.phase), ("w1", Phase::Running), "{text}");
            }
        }
    }

    #[test]
    fn nulls_are_absent_fields() {
        let text = r#"{"metadata":{"name":"p","labels":{"controller-uid":"u"},"annotations":null,"finalizers":null},
            "spec":{"volumes":null,"affinity":{"nodeAffinity":null},"hostname":null},"status":null}"#;
        assert_eq!(*pod(text).details.unwrap(), PodDetails::default());
        assert_eq!(pod(r#"{"metadata":{"name":"p"},"spec":null}"#).phase, Phase::Pending);
    }
}
