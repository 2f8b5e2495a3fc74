//! Failures that others ran into with these kinds, each as a test that would have shown it.

use jiff::SignedDuration;
use serde_json::{Value, json};
use trysail_core::{
    Face, Key, Resource,
    resource::{CONTROLLER_REVISIONS, PODS},
};
use trysail_testkit::{
    Cluster, Manager,
    cluster::{Exit, Writer},
    fixtures::{self, NAMESPACE},
    scenario::replay,
};

struct Stage {
    cluster: Cluster,
    manager: Manager,
    deployments: Resource,
    key: Key,
}

impl Stage {
    fn with_deployment(replicas: i32) -> Self {
        let mut cluster = Cluster::default();
        let [deployments, ..] = Cluster::resources(Face::Native);
        let manifest = fixtures::deployment(Face::Native, "web", replicas, "v1");
        cluster.create(deployments, manifest, Writer::Other).unwrap();
        let manager = Manager::start(Face::Native, &cluster);
        Self { cluster, manager, deployments, key: Key::new(NAMESPACE, "web") }
    }

    fn tick(&mut self, times: usize) {
        for _ in 0..times {
            self.cluster.advance(SignedDuration::from_secs(1));
            self.cluster.actors();
            assert!(self.manager.settle(&mut self.cluster));
        }
        let violations = self.cluster.invariants.violations();
        assert!(violations.is_empty(), "{violations:?}\n{:#?}", self.manager.journal);
    }

    fn patch(&mut self, subresource: Option<&str>, patch: &Value) {
        let patched =
            self.cluster.patch(self.deployments, &self.key, (None, 0), subresource, patch, Writer::Other);
        patched.unwrap();
    }

    fn deployment(&self) -> Value {
        (*self.cluster.get(self.deployments, &self.key).unwrap()).clone()
    }

    fn revision(&self) -> String {
        self.deployment()["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
            .as_str()
            .unwrap()
            .into()
    }
}

/// 1. A status sent with the object vanishes on a real server, so the simulated one drops it too, and ours goes
///    to `/status`.
#[test]
fn lesson_1_a_status_goes_to_its_subresource() {
    let mut stage = Stage::with_deployment(1);
    stage.patch(None, &json!({"status": {"replicas": 7}}));
    assert_eq!(stage.deployment()["status"], Value::Null);
    stage.patch(Some("status"), &json!({"spec": {"replicas": 7}, "status": {"observedGeneration": 1}}));
    assert_eq!(stage.deployment()["spec"]["replicas"], 1);
    stage.tick(4);
    assert_eq!(stage.deployment()["status"]["availableReplicas"], 1);
}

/// The cluster with one object in it, and the controllers of the native kinds.
fn with(resource: Resource, manifest: Value) -> (Cluster, Manager) {
    let mut cluster = Cluster::default();
    cluster.create(resource, manifest, Writer::Other).unwrap();
    let manager = Manager::start(Face::Native, &cluster);
    (cluster, manager)
}

fn is_going(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

/// 2. A stale list, and pods that had ended while they were terminating, let an ordered scale-down take three pods in a
///    second. One goes at a time, whatever the view shows, and whatever becomes of the one that goes.
#[test]
fn lesson_2_an_ordered_scale_down_takes_one_pod_at_a_time() {
    for lag in 0..8 {
        let sets = Resource::stateful_sets(Face::Native);
        let (mut cluster, mut manager) = with(sets, fixtures::stateful_set(Face::Native, "db", 4, "v1"));
        for _ in 0..20 {
            cluster.advance(SignedDuration::from_secs(1));
            cluster.actors();
            assert!(manager.settle(&mut cluster));
        }
        assert_eq!(cluster.list(PODS).len(), 4);
        cluster.kubelet.terminate_after = 3;
        manager.set_lag(lag);
        let less = json!({"spec": {"replicas": 0}});
        cluster.patch(sets, &Key::new(NAMESPACE, "db"), (None, 0), None, &less, Writer::Other).unwrap();
        let mut taken = 0;
        for _ in 0..200 {
            manager.round(&mut cluster);
            let pods = cluster.list(PODS);
            let going: Vec<&Value> = pods.iter().map(|pod| &**pod).filter(|pod| is_going(pod)).collect();
            assert!(going.len() <= 1, "lag {lag}: {going:#?}\n{:#?}", manager.journal);
            // Its containers end long before it is gone.
            if let Some(pod) = going.iter().find(|pod| pod["status"]["phase"] == "Running") {
                taken += 1;
                cluster.finish(&Key::new(NAMESPACE, pod["metadata"]["name"].as_str().unwrap()), "Failed");
            }
            cluster.advance(SignedDuration::from_millis(300));
            cluster.actors();
        }
        manager.set_lag(0);
        for _ in 0..20 {
            cluster.advance(SignedDuration::from_secs(1));
            cluster.actors();
            assert!(manager.settle(&mut cluster));
        }
        assert!(cluster.list(PODS).is_empty(), "lag {lag}: {:#?}", manager.journal);
        assert!(lag > 0 || taken == 4, "{taken} pods were seen going");
    }
}

/// 3. A deletion is a DELETE with the default grace period and the uid of the pod that was judged.
#[test]
fn lesson_3_pods_end_gracefully() {
    let mut stage = Stage::with_deployment(1);
    stage.tick(4);
    stage.patch(None, &json!({"spec": {"replicas": 0}}));
    assert!(stage.manager.settle(&mut stage.cluster));
    let pods = stage.cluster.list(PODS);
    assert!(pods[0]["metadata"]["deletionTimestamp"].is_string(), "{:?}", pods[0]);
}

/// 4. A Job hung at `active: 1`: `Failed` came without `FailureTarget`, a counter went down, and the server refused the
///    whole status, every time. Here it refuses too; so every status that is written is a step that it takes.
#[test]
fn lesson_4_a_job_ends_in_steps_that_the_server_takes() {
    let jobs = Resource::jobs(Face::Native);
    for (code, steps) in [(0, ["SuccessCriteriaMet", "Complete"]), (1, ["FailureTarget", "Failed"])] {
        let mut manifest = fixtures::job(Face::Native, "pi", "ends");
        let more = json!({"completions": 3, "parallelism": 2, "backoffLimit": 1});
        manifest["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (mut cluster, mut manager) = with(jobs, manifest);
        cluster.kubelet.exits.insert("ends".to_owned(), Exit { after: 2, code });
        for _ in 0..120 {
            cluster.advance(SignedDuration::from_secs(1));
            cluster.actors();
            assert!(manager.settle(&mut cluster));
        }
        let refused: Vec<_> = manager.journal.iter().filter(|line| line.starts_with("refused")).collect();
        assert!(refused.is_empty(), "{refused:#?}");
        let mut before = json!({});
        for event in cluster.events(jobs) {
            let status = &event.object.as_deref().unwrap()["status"];
            for counter in ["succeeded", "failed"] {
                let count = |status: &Value| status[counter].as_i64().unwrap_or(0);
                assert!(count(status) >= count(&before), "{before} became {status}");
            }
            if has(status, steps[1]) {
                assert!(has(&before, steps[0]), "{before} became {status}");
                assert_eq!(status["active"].as_i64().unwrap_or(0), 0, "{status}");
            }
            before = status.clone();
        }
        assert!(has(&before, steps[1]), "{before}");
    }
}

fn has(status: &Value, kind: &str) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|held| held["type"] == kind && held["status"] == "True")
}

/// 5. One replica became eight pods in 400 ms: the watch was late, and the controller went on without it.
#[test]
fn lesson_5_a_late_watch_makes_no_surplus_pod() {
    for lag in 1..12 {
        let mut stage = Stage::with_deployment(1);
        stage.manager.set_lag(lag);
        for _ in 0..60 {
            stage.manager.round(&mut stage.cluster);
            stage.cluster.advance(SignedDuration::from_millis(200));
            assert!(stage.cluster.list(PODS).len() <= 1, "lag {lag}: {:#?}", stage.manager.journal);
        }
        stage.manager.set_lag(0);
        stage.tick(6);
        assert_eq!(stage.cluster.list(PODS).len(), 1);
    }
}

/// 6. v2 never gets ready, then v3: what is unready goes, what serves stays. Judged at every write.
#[test]
fn lesson_6_a_rollover_keeps_the_available_pods() {
    for (surge, unavailable) in [(1, 0), (0, 1), (2, 1), (1, 2)] {
        let transcript = replay(&format!(
            "$ broken v2\n$ deployment web replicas=4 surge={surge} unavailable={unavailable}\n$ tick 4\n\
             $ image web v2\n$ tick 9\n$ image web v3\n$ tick 30\n$ show\n"
        ));
        assert!(!transcript.contains("VIOLATION"), "{transcript}");
        assert!(transcript.contains("updated 4 ready 4 available 4"), "{transcript}");
    }
}

/// 7. Whatever field of the pod spec changes, it rolls out once; and the next revision is the highest plus one.
#[test]
fn lesson_7_every_change_of_the_template_is_one_rollout() {
    let mut stage = Stage::with_deployment(1);
    stage.tick(5);
    let container = |more: Value| {
        let mut container = json!({"name": "main", "image": "v1"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": {"containers": [container]}})
    };
    let changes = [
        json!({"spec": {"terminationGracePeriodSeconds": 5}}),
        json!({"spec": {"hostNetwork": true}}),
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        json!({"spec": {"futureField": {"of": [1, {"a": "newer server"}]}}}),
        json!({"metadata": {"labels": {"tier": "front"}}}),
        json!({"metadata": {"annotations": {"restartedAt": "now"}}}),
        container(json!({"env": [{"name": "A", "value": "1"}]})),
        container(json!({"env": [{"name": "A", "value": ""}]})),
        container(json!({"resources": {"limits": {"cpu": "1"}}})),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        stage.patch(None, &json!({"spec": {"template": change}}));
        stage.tick(8);
        assert_eq!(stage.revision(), (number + 2).to_string(), "{change}");
    }
    // What means the same is no change.
    let same = json!({"spec": {"template": {"spec": {"nodeSelector": null, "tolerations": []}}}});
    stage.patch(None, &same);
    stage.tick(3);
    assert_eq!(stage.revision(), "10");
}

/// 8. A rollback restarted every pod of a DaemonSet: its records differed from what Go writes in the order of keys, in a
///    missing `$patch: replace`, in the alphabet of the hash. Here every record and every pod is as
///    kube-controller-manager left it, with templates that it wrote; nothing is recorded anew, and no pod restarts.
#[test]
fn lesson_8_records_of_kube_controller_manager_restart_no_pod() {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Golden {
        name: String,
        template: Value,
        hash: String,
        stateful_set: Value,
    }
    let golden: Vec<Golden> = serde_json::from_str(include_str!("../revisions/golden.json")).unwrap();
    let sets = Resource::stateful_sets(Face::Native);
    for Golden { name, template, hash, stateful_set } in golden {
        let mut manifest = fixtures::stateful_set(Face::Native, "db", 1, "v1");
        let labels = template["metadata"]["labels"].clone();
        manifest["spec"]["selector"] = json!({ "matchLabels": labels });
        manifest["spec"]["template"] = template;
        let mut cluster = Cluster::default();
        let set = cluster.create(sets, manifest, Writer::Other).unwrap();
        let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db",
            "uid": set["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true}]);
        let record_name = format!("db-{hash}");
        let mut marked = labels.clone();
        marked["controller.kubernetes.io/hash"] = hash.as_str().into();
        let record = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": stateful_set,
            "metadata": {"name": record_name, "namespace": NAMESPACE, "labels": marked, "ownerReferences": owner}});
        cluster.create(CONTROLLER_REVISIONS, record, Writer::Other).unwrap();
        let mut own = labels;
        own["controller-revision-hash"] = record_name.as_str().into();
        own["statefulset.kubernetes.io/pod-name"] = "db-0".into();
        own["apps.kubernetes.io/pod-index"] = "0".into();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
            "metadata": {"name": "db-0", "namespace": NAMESPACE, "labels": own, "ownerReferences": owner}});
        let uid = cluster.create(PODS, pod, Writer::Other).unwrap()["metadata"]["uid"].clone();
        let mut manager = Manager::start(Face::Native, &cluster);
        for _ in 0..10 {
            cluster.advance(SignedDuration::from_secs(1));
            cluster.actors();
            assert!(manager.settle(&mut cluster));
        }
        let pods = cluster.list(PODS);
        assert!(pods.len() == 1 && pods[0]["metadata"]["uid"] == uid, "{name}: {:#?}", manager.journal);
        assert_eq!(cluster.list(CONTROLLER_REVISIONS).len(), 1, "{name}: {:#?}", manager.journal);
        let status = &cluster.get(sets, &Key::new(NAMESPACE, "db")).unwrap()["status"];
        assert_eq!(status["updateRevision"], *record_name, "{name}: {status}");
    }
}

/// 9. The rows with nothing and with one, for both strategies and for percentages that round to nothing.
#[test]
fn lesson_9_nothing_and_one_are_sizes_too() {
    for strategy in ["", "surge=0 unavailable=1", "surge=\"1%\" unavailable=\"1%\"", "strategy=Recreate"] {
        for (from, to) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
            let transcript = replay(&format!(
                "$ deployment web replicas={from} {strategy}\n$ tick 4\n$ image web v2\n$ tick 1\n\
                 $ scale web {to}\n$ tick 12\n$ show\n"
            ));
            let end = format!("wants {to}, has {to} updated {to} ready {to} available {to} terminating 0");
            assert!(transcript.contains(&format!("Deployment web v2 revision 2: {end}")), "{transcript}");
            assert!(!transcript.contains("VIOLATION"), "{transcript}");
        }
    }
}

/// 10. At rest nothing is written, whatever the clock says; and nobody else's condition is touched.
#[test]
fn lesson_10_at_rest_nothing_is_written() {
    let mut stage = Stage::with_deployment(2);
    stage.tick(5);
    let foreign = json!({"type": "Foreign", "status": "True", "reason": "Test"});
    let mut conditions = stage.deployment()["status"]["conditions"].clone();
    conditions.as_array_mut().unwrap().push(foreign.clone());
    stage.patch(Some("status"), &json!({"status": {"conditions": conditions}}));
    let before = stage.cluster.revision();
    stage.tick(700);
    assert_eq!(stage.cluster.revision(), before);
    stage.patch(None, &json!({"spec": {"replicas": 3}}));
    stage.tick(5);
    let conditions = stage.deployment()["status"]["conditions"].clone();
    assert!(conditions.as_array().unwrap().contains(&foreign), "{conditions}");
}
