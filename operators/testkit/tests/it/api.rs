//! Finalizers, owners, deletions, defaults, and what may not change.

use serde_json::{Value, json};
use trysail_core::{
    Face, Resource,
    plan::Propagation,
    resource::{CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS},
};
use trysail_testkit::{
    ApiError, Cluster,
    cluster::Writer,
    fixtures::{self, NAMESPACE},
};

use crate::{controlled_by, create, key, phase, pod, ticks};

const TRACKING: &str = "batch.kubernetes.io/job-tracking";

fn patch(cluster: &mut Cluster, resource: Resource, name: &str, patch: &Value) -> Result<(), ApiError> {
    let writer = Writer::Controller;
    cluster.patch(resource, &key(name), (None, 0), None, patch, writer).map(drop)
}

/// Its end is told by the kubelet, and the object stays until the Job has counted it.
#[test]
fn a_deleted_pod_stays_until_its_finalizers_are_off() {
    let mut cluster = Cluster::default();
    create(&mut cluster, PODS, pod("a", &json!({}), &json!({"finalizers": [TRACKING]})));
    ticks(&mut cluster, 3);
    assert_eq!(phase(&cluster, "a").as_deref(), Some("Running"));
    cluster.delete(PODS, &key("a"), None, Writer::Other).unwrap();
    ticks(&mut cluster, 5);
    assert_eq!(phase(&cluster, "a").as_deref(), Some("Failed"));
    let ended = cluster.get(PODS, &key("a")).unwrap();
    assert_eq!(ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 143);
    let more = patch(&mut cluster, PODS, "a", &json!({"metadata": {"finalizers": [TRACKING, "b/c"]}}));
    assert!(matches!(more, Err(ApiError::Invalid(_))), "{more:?}");
    patch(&mut cluster, PODS, "a", &json!({"metadata": {"finalizers": []}})).unwrap();
    assert_eq!(phase(&cluster, "a"), None);
}

/// A running pod whose finalizers go first still gets its grace period.
#[test]
fn a_terminating_pod_ends_by_its_kubelet() {
    let mut cluster = Cluster::default();
    create(&mut cluster, PODS, pod("a", &json!({}), &json!({"finalizers": [TRACKING]})));
    ticks(&mut cluster, 3);
    cluster.delete(PODS, &key("a"), None, Writer::Other).unwrap();
    patch(&mut cluster, PODS, "a", &json!({"metadata": {"finalizers": []}})).unwrap();
    assert_eq!(phase(&cluster, "a").as_deref(), Some("Running"));
    ticks(&mut cluster, 3);
    assert_eq!(phase(&cluster, "a"), None);
}

#[test]
fn an_object_has_one_controller() {
    let mut cluster = Cluster::default();
    let owners = json!([{"uid": "x", "controller": true}, {"uid": "y", "controller": true}]);
    let two = cluster.create(PODS, pod("a", &json!({}), &json!({"ownerReferences": owners})), Writer::Other);
    assert!(matches!(two, Err(ApiError::Invalid(_))), "{two:?}");
}

struct Family {
    cluster: Cluster,
    set: Resource,
}

/// A ReplicaSet with a running pod.
fn family(resource: Resource) -> Family {
    let mut cluster = Cluster::default();
    let manifest = match resource.plural {
        "jobs" => fixtures::job(Face::Native, "web", "v1"),
        _ => fixtures::replica_set(Face::Native, "web", 1, "v1"),
    };
    let owner = create(&mut cluster, resource, manifest);
    create(&mut cluster, PODS, pod("web-1", &json!({}), &json!({"ownerReferences": controlled_by(&owner)})));
    ticks(&mut cluster, 3);
    Family { cluster, set: resource }
}

impl Family {
    fn delete(&mut self, propagation: Option<Propagation>) {
        self.cluster.delete_with(self.set, &key("web"), None, propagation, Writer::Other).unwrap();
    }

    /// Whether owner, pod, and the pod's owner reference are there.
    fn state(&self) -> (bool, bool, bool) {
        let pod = self.cluster.get(PODS, &key("web-1"));
        let is_owned = pod.as_ref().is_some_and(|pod| pod["metadata"]["ownerReferences"][0].is_object());
        (self.cluster.get(self.set, &key("web")).is_some(), pod.is_some(), is_owned)
    }
}

#[test]
fn dependents_go_after_before_or_not_at_all() {
    let sets = Resource::replica_sets(Face::Native);
    let mut background = family(sets);
    background.delete(Some(Propagation::Background));
    assert_eq!(background.state(), (false, true, true));
    ticks(&mut background.cluster, 4);
    assert_eq!(background.state(), (false, false, false));

    let mut foreground = family(sets);
    foreground.delete(Some(Propagation::Foreground));
    ticks(&mut foreground.cluster, 1);
    assert_eq!(foreground.state(), (true, true, true), "the pod is on its way");
    ticks(&mut foreground.cluster, 4);
    assert_eq!(foreground.state(), (false, false, false));

    let mut orphaning = family(sets);
    orphaning.delete(Some(Propagation::Orphan));
    assert_eq!(orphaning.state(), (true, true, true));
    ticks(&mut orphaning.cluster, 2);
    assert_eq!(orphaning.state(), (false, true, false));
}

/// `batch/v1` Jobs were there before the garbage collector: without a word about it their pods stay.
#[test]
fn the_default_of_a_native_job_is_to_leave_its_pods() {
    let mut family = family(Resource::jobs(Face::Native));
    family.delete(None);
    ticks(&mut family.cluster, 3);
    assert_eq!(family.state(), (false, true, false));
}

#[test]
fn a_native_job_gets_defaults_labels_and_a_selector_ours_only_what_a_schema_can() {
    let mut cluster = Cluster::default();
    let native = create(&mut cluster, Resource::jobs(Face::Native), fixtures::job(Face::Native, "sum", "v1"));
    let (spec, uid) = (&native["spec"], &native["metadata"]["uid"]);
    assert_eq!(
        (&spec["completions"], &spec["parallelism"], &spec["backoffLimit"]),
        (&json!(1), &json!(1), &json!(6))
    );
    assert_eq!(spec["podReplacementPolicy"], "TerminatingOrFailed");
    assert_eq!(spec["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": uid}));
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!((&labels["controller-uid"], &labels["job-name"]), (uid, &json!("sum")));
    assert_eq!(labels["batch.kubernetes.io/job-name"], "sum");

    let ours = create(&mut cluster, Resource::jobs(Face::Crd), fixtures::job(Face::Crd, "sum", "v1"));
    assert_eq!(ours["spec"]["completionMode"], "NonIndexed");
    assert!(ours["spec"]["selector"].is_null(), "{ours}");
    assert_eq!(ours["spec"]["template"]["metadata"]["labels"], json!({"app": "sum"}));
}

#[test]
fn a_jobs_template_may_change_while_it_is_suspended_only() {
    let mut cluster = Cluster::default();
    let jobs = Resource::jobs(Face::Native);
    let mut manifest = fixtures::job(Face::Native, "sum", "v1");
    manifest["spec"]["suspend"] = true.into();
    create(&mut cluster, jobs, manifest);
    let place = json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "fast"}}}}});
    patch(&mut cluster, jobs, "sum", &place).unwrap();
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "v2"}]}}}});
    assert!(matches!(patch(&mut cluster, jobs, "sum", &image), Err(ApiError::Invalid(_))));
    patch(&mut cluster, jobs, "sum", &json!({"spec": {"suspend": false}})).unwrap();
    let back = json!({"spec": {"template": {"spec": {"nodeSelector": null}}}});
    assert!(matches!(patch(&mut cluster, jobs, "sum", &back), Err(ApiError::Invalid(_))));
    let more = json!({"spec": {"completions": 5}});
    assert!(matches!(patch(&mut cluster, jobs, "sum", &more), Err(ApiError::Invalid(_))));
    patch(&mut cluster, jobs, "sum", &json!({"spec": {"parallelism": 5}})).unwrap();
}

#[test]
fn an_indexed_job_grows_and_shrinks_in_both_numbers_at_once() {
    let mut cluster = Cluster::default();
    let jobs = Resource::jobs(Face::Crd);
    let mut manifest = fixtures::job(Face::Crd, "sum", "v1");
    manifest["spec"]["completionMode"] = "Indexed".into();
    manifest["spec"]["completions"] = 3.into();
    manifest["spec"]["parallelism"] = 3.into();
    create(&mut cluster, jobs, manifest);
    assert!(patch(&mut cluster, jobs, "sum", &json!({"spec": {"completions": 5}})).is_err());
    patch(&mut cluster, jobs, "sum", &json!({"spec": {"completions": 5, "parallelism": 5}})).unwrap();
}

#[test]
fn what_is_for_ever_stays() {
    let mut cluster = Cluster::default();
    let sets = Resource::stateful_sets(Face::Crd);
    create(&mut cluster, sets, fixtures::stateful_set(Face::Crd, "db", 1, "v1"));
    assert!(patch(&mut cluster, sets, "db", &json!({"spec": {"serviceName": "other"}})).is_err());
    patch(&mut cluster, sets, "db", &json!({"spec": {"replicas": 2, "minReadySeconds": 3}})).unwrap();

    let revision =
        json!({"metadata": {"name": "db-1", "namespace": NAMESPACE}, "data": {"a": 1}, "revision": 1});
    create(&mut cluster, CONTROLLER_REVISIONS, revision);
    assert!(patch(&mut cluster, CONTROLLER_REVISIONS, "db-1", &json!({"data": {"a": 2}})).is_err());
    patch(&mut cluster, CONTROLLER_REVISIONS, "db-1", &json!({"revision": 2})).unwrap();

    create(&mut cluster, PODS, fixtures::pod("a", "app"));
    assert!(patch(&mut cluster, PODS, "a", &json!({"spec": {"hostname": "b"}})).is_err());
}

/// A pod waits for its claims, and a claim that is deleted waits for its pods.
#[test]
fn claims_and_pods_wait_for_each_other() {
    let mut cluster = Cluster::default();
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-a"}}]);
    create(&mut cluster, PODS, pod("a", &json!({"volumes": volumes}), &json!({})));
    ticks(&mut cluster, 3);
    assert_eq!(phase(&cluster, "a").as_deref(), Some("Pending"));
    create(&mut cluster, PERSISTENT_VOLUME_CLAIMS, fixtures::claim("data-a"));
    ticks(&mut cluster, 3);
    assert_eq!(phase(&cluster, "a").as_deref(), Some("Running"));
    cluster.delete(PERSISTENT_VOLUME_CLAIMS, &key("data-a"), None, Writer::Other).unwrap();
    ticks(&mut cluster, 3);
    assert!(cluster.get(PERSISTENT_VOLUME_CLAIMS, &key("data-a")).is_some());
    cluster.delete(PODS, &key("a"), None, Writer::Other).unwrap();
    ticks(&mut cluster, 4);
    assert!(cluster.get(PERSISTENT_VOLUME_CLAIMS, &key("data-a")).is_none());
}

/// As the restart policy has it: again, or for good.
#[test]
fn containers_end_with_their_code() {
    let mut cluster = Cluster::default();
    for policy in ["Never", "OnFailure", "Always"] {
        create(
            &mut cluster,
            PODS,
            pod(&policy.to_lowercase(), &json!({"restartPolicy": policy}), &json!({})),
        );
    }
    ticks(&mut cluster, 3);
    for name in ["never", "onfailure", "always"] {
        cluster.exit(&key(name), 3);
    }
    assert_eq!(phase(&cluster, "never").as_deref(), Some("Failed"));
    let never = cluster.get(PODS, &key("never")).unwrap();
    assert_eq!(never["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    for name in ["onfailure", "always"] {
        let again = cluster.get(PODS, &key(name)).unwrap();
        assert_eq!(
            (&again["status"]["phase"], &again["status"]["containerStatuses"][0]["restartCount"]),
            (&json!("Running"), &json!(1))
        );
    }
    cluster.exit(&key("onfailure"), 0);
    assert_eq!(phase(&cluster, "onfailure").as_deref(), Some("Succeeded"));
    cluster.evict(&key("always"));
    let evicted = cluster.get(PODS, &key("always")).unwrap();
    assert_eq!(
        (&evicted["status"]["phase"], &evicted["status"]["reason"]),
        (&json!("Failed"), &json!("Evicted"))
    );
    assert_eq!(evicted["status"]["conditions"][0]["type"], "DisruptionTarget");
}
