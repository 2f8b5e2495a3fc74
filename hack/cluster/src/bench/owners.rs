//! When an owner's status says that all is done: one rule per kind, for the bench to know the end of a phase.

use serde::Deserialize;

use super::client::Versioned;

/// What every owner has.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    name: String,
    namespace: String,
    resource_version: String,
    generation: u64,
}

/// An object of a kind that owns pods.
pub(crate) trait Owner {
    fn meta(&self) -> &Meta;

    /// Whether its status says that its spec is fulfilled.
    fn done(&self) -> bool;

    fn key(&self) -> String {
        format!("{}/{}", self.meta().namespace, self.meta().name)
    }

    /// The generation at which it is done.
    fn done_generation(&self) -> Option<u64> {
        self.done().then_some(self.meta().generation)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Deployment {
    metadata: Meta,
    spec: Replicas,
    #[serde(default)]
    status: DeploymentStatus,
}

#[derive(Debug, Deserialize)]
struct Replicas {
    replicas: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeploymentStatus {
    observed_generation: u64,
    replicas: u64,
    updated_replicas: u64,
    available_replicas: u64,
}

impl Owner for Deployment {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    fn done(&self) -> bool {
        let (wanted, status) = (self.spec.replicas, &self.status);
        status.observed_generation >= self.metadata.generation
            && [status.replicas, status.updated_replicas, status.available_replicas] == [wanted; 3]
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct StatefulSet {
    metadata: Meta,
    spec: Replicas,
    #[serde(default)]
    status: StatefulSetStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatefulSetStatus {
    observed_generation: u64,
    replicas: u64,
    current_replicas: u64,
    available_replicas: u64,
    current_revision: String,
    update_revision: String,
}

impl Owner for StatefulSet {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    /// The update is completed when its revision has become the current one.
    fn done(&self) -> bool {
        let (wanted, status) = (self.spec.replicas, &self.status);
        status.observed_generation >= self.metadata.generation
            && [status.replicas, status.current_replicas, status.available_replicas] == [wanted; 3]
            && status.current_revision == status.update_revision
    }
}

/// Done for the nodes that its controller knows; how many there should be is the phase's to say.
#[derive(Debug, Deserialize)]
pub(crate) struct DaemonSet {
    metadata: Meta,
    #[serde(default)]
    status: DaemonSetStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DaemonSetStatus {
    observed_generation: u64,
    desired_number_scheduled: u64,
    updated_number_scheduled: u64,
    number_available: u64,
}

impl DaemonSet {
    /// On how many nodes it wants to be.
    pub(crate) fn nodes(&self) -> u64 {
        self.status.desired_number_scheduled
    }
}

impl Owner for DaemonSet {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    fn done(&self) -> bool {
        let status = &self.status;
        status.observed_generation >= self.metadata.generation
            && [status.updated_number_scheduled, status.number_available] == [self.nodes(); 2]
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Job {
    metadata: Meta,
    #[serde(default)]
    status: JobStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JobStatus {
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

impl Owner for Job {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    fn done(&self) -> bool {
        self.status.conditions.iter().any(|c| c.r#type == "Complete" && c.status == "True")
    }
}

macro_rules! versioned {
    ($($kind:ty),*) => {
        $(impl Versioned for $kind {
            fn version(&self) -> &str {
                &self.meta().resource_version
            }
        })*
    };
}

versioned!(Deployment, StatefulSet, DaemonSet, Job);

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn done<T: Owner + DeserializeOwned>(spec: &Value, status: &Value) -> Option<u64> {
        let meta = json!({"name": "x", "namespace": "bench-0", "resourceVersion": "1", "generation": 2});
        let object = json!({"metadata": meta, "spec": spec, "status": status});
        serde_json::from_value::<T>(object).unwrap().done_generation()
    }

    /// The status of before an update says nothing.
    #[test]
    fn a_status_of_an_older_generation_does_not_count() {
        let spec = json!({"replicas": 3});
        let deployment = |observed: u64| json!({"observedGeneration": observed, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3});
        assert_eq!(done::<Deployment>(&spec, &deployment(1)), None);
        assert_eq!(done::<Deployment>(&spec, &deployment(2)), Some(2));
        let daemon = |observed: u64| {
            json!({"observedGeneration": observed, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2,
                   "numberAvailable": 2})
        };
        assert_eq!(done::<DaemonSet>(&json!({}), &daemon(1)), None);
        assert_eq!(done::<DaemonSet>(&json!({}), &daemon(2)), Some(2));
    }

    #[test]
    fn a_stateful_set_is_done_when_the_new_revision_is_the_current_one() {
        let status = |current: &str| {
            json!({"observedGeneration": 2, "replicas": 3, "currentReplicas": 3, "availableReplicas": 3,
                   "currentRevision": current, "updateRevision": "db-2"})
        };
        assert_eq!(done::<StatefulSet>(&json!({"replicas": 3}), &status("db-1")), None);
        assert_eq!(done::<StatefulSet>(&json!({"replicas": 3}), &status("db-2")), Some(2));
    }

    /// That a Job is going to be complete is another condition.
    #[test]
    fn a_job_is_done_when_it_is_complete() {
        let status = |kind: &str| json!({"conditions": [{"type": kind, "status": "True"}]});
        assert_eq!(done::<Job>(&json!({}), &status("SuccessCriteriaMet")), None);
        assert_eq!(done::<Job>(&json!({}), &status("Complete")), Some(2));
    }
}
