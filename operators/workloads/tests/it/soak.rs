//! Four hours with everything at once: all kinds in both faces, users, failing pods and nodes, late views, lost
//! replies and crashes. In the end all is as wanted, the queues are empty, and nothing is written any more.
//!
//! A kind takes part as soon as its controller is entered in the testkit's `kinds`.

use jiff::SignedDuration;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use trysail_core::{Face, Key, Resource};
use trysail_testkit::{
    Cluster,
    cluster::{Exit, Writer, key_of},
    fixtures::{self, NAMESPACE},
    kinds,
    manager::Registration,
    property::{Subject, World, as_wanted, hostile},
};

/// What users do, to the object of a place among all.
#[derive(Clone, Debug)]
enum Op {
    Scale(usize, i64),
    Image(usize, u8),
    Suspend(usize, bool),
    Partition(usize, i64),
    Delete(usize),
    NewJob(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (any::<usize>(), 0..6i64).prop_map(|(place, size)| Op::Scale(place, size)),
        3 => (any::<usize>(), 1..4u8).prop_map(|(place, image)| Op::Image(place, image)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(place, is_on)| Op::Suspend(place, is_on)),
        1 => (any::<usize>(), 0..3i64).prop_map(|(place, partition)| Op::Partition(place, partition)),
        1 => any::<usize>().prop_map(Op::Delete),
        2 => (0..6u8).prop_map(Op::NewJob),
    ]
}

/// Everything there is.
struct Everything {
    kinds: Vec<Kind>,
}

/// A kind that takes part.
#[derive(Clone, Copy)]
struct Kind {
    controller: &'static str,
    resource: fn(Face) -> Resource,
    manifests: fn(Face) -> Vec<Value>,
}

const KINDS: [Kind; 7] = [
    Kind {
        controller: "deployment-controller",
        resource: Resource::deployments,
        manifests: |face| {
            vec![fixtures::deployment(face, "web", 3, "v1"), fixtures::deployment(face, "cart", 2, "v1")]
        },
    },
    Kind {
        controller: "replicaset-controller",
        resource: Resource::replica_sets,
        manifests: |face| vec![fixtures::replica_set(face, "set", 2, "v1")],
    },
    Kind {
        controller: "replication-controller",
        resource: Resource::replication_controllers,
        manifests: |face| vec![fixtures::replication_controller(face, "old", 2, "v1")],
    },
    Kind {
        controller: "statefulset-controller",
        resource: Resource::stateful_sets,
        manifests: |face| {
            let mut claims = fixtures::stateful_set(face, "db", 3, "v1");
            claims["spec"]["volumeClaimTemplates"] = json!([fixtures::claim_template("data")]);
            let mut parallel = fixtures::stateful_set(face, "cache", 2, "v1");
            parallel["spec"]["podManagementPolicy"] = "Parallel".into();
            vec![claims, parallel]
        },
    },
    Kind {
        controller: "daemonset-controller",
        resource: Resource::daemon_sets,
        manifests: |face| {
            let mut surging = fixtures::daemon_set(face, "log", "v1");
            surging["spec"]["updateStrategy"] =
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
            vec![fixtures::daemon_set(face, "agent", "v1"), surging]
        },
    },
    Kind {
        controller: "job-controller",
        resource: Resource::jobs,
        manifests: |face| vec![job(face, "first", 0)],
    },
    Kind {
        controller: "cronjob-controller",
        resource: Resource::cron_jobs,
        manifests: |face| {
            let mut forbidding = fixtures::cron_job(face, "often", "*/2 * * * *", "slow");
            forbidding["spec"]["concurrencyPolicy"] = "Forbid".into();
            vec![fixtures::cron_job(face, "tick", "*/5 * * * *", "well"), forbidding]
        },
    },
];

/// Jobs that end in every way there is.
fn job(face: Face, name: &str, variant: u8) -> Value {
    let (image, spec) = match variant {
        0 => ("well", json!({"completions": 3, "parallelism": 2})),
        1 => ("well", json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed"})),
        2 => ("ill", json!({"backoffLimit": 1})),
        3 => ("slow", json!({"activeDeadlineSeconds": 10})),
        4 => ("well", json!({"ttlSecondsAfterFinished": 60})),
        _ => {
            let rule = json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
            ("well", json!({"podFailurePolicy": {"rules": [rule]}}))
        }
    };
    let mut job = fixtures::job(face, name, image);
    if let (Some(all), Some(more)) = (job["spec"].as_object_mut(), spec.as_object()) {
        all.extend(more.clone());
    }
    job
}

impl Everything {
    fn new() -> Self {
        let entered: Vec<&str> = kinds::all(Face::Crd).iter().map(Registration::name).collect();
        Self { kinds: KINDS.into_iter().filter(|kind| entered.contains(&kind.controller)).collect() }
    }

    fn objects(&self, cluster: &Cluster) -> Vec<(Resource, Value)> {
        let resources = self.kinds.iter().flat_map(|kind| FACES.map(kind.resource));
        let objects = resources.flat_map(|resource| {
            cluster.list(resource).into_iter().map(move |object| (resource, (*object).clone()))
        });
        objects.collect()
    }

    /// ReplicaSets of a Deployment are left alone: who edits them takes the number of pods into his own hands.
    fn with(
        &self,
        cluster: &mut Cluster,
        place: usize,
        act: impl FnOnce(&mut Cluster, Resource, &Value, &Key),
    ) {
        let mut objects = self.objects(cluster);
        let is_owned = |object: &Value| object["metadata"]["ownerReferences"].is_array();
        objects.retain(|(resource, object)| resource.plural == "jobs" || !is_owned(object));
        if let Some((resource, object)) = place.checked_rem(objects.len()).map(|place| &objects[place]) {
            act(cluster, *resource, object, &key_of(object));
        }
    }
}

const FACES: [Face; 2] = [Face::Crd, Face::Native];

/// What the server refuses a user is the user's affair.
fn patch(cluster: &mut Cluster, resource: Resource, key: &Key, patch: &Value) {
    let _ = cluster.patch(resource, key, (None, 0), None, patch, Writer::Other);
}

impl Subject for Everything {
    type Step = Op;

    fn controllers(&self) -> Vec<Registration> {
        FACES.into_iter().flat_map(kinds::all).collect()
    }

    fn set_up(&self, cluster: &mut Cluster) {
        for (image, after, code) in [("well", 2, 0), ("ill", 1, 3), ("slow", 25, 0)] {
            cluster.kubelet.exits.insert(image.to_owned(), Exit { after, code });
        }
        cluster.kubelet.broken_images.insert("v3".to_owned());
        for node in ["w1", "w2", "w3", "w4"] {
            cluster.add_node(node, &json!({"kubernetes.io/hostname": node})).unwrap();
        }
        for (number, face) in FACES.into_iter().enumerate() {
            for kind in &self.kinds {
                for mut manifest in (kind.manifests)(face) {
                    // Names and selectors of the two faces must not meet: pods are the same kind.
                    let text = manifest.to_string();
                    let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
                    let own = text.replace(&format!("\"{name}\""), &format!("\"{name}{number}\""));
                    manifest = serde_json::from_str(&own).unwrap();
                    cluster.create((kind.resource)(face), manifest, Writer::Other).unwrap();
                }
            }
        }
    }

    fn step(&self, cluster: &mut Cluster, op: &Op) {
        match op {
            Op::Scale(place, size) => self.with(cluster, *place, |cluster, resource, _, key| {
                let field = if resource.plural == "jobs" { "parallelism" } else { "replicas" };
                if !matches!(resource.plural, "daemonsets" | "cronjobs") {
                    patch(cluster, resource, key, &json!({"spec": {field: size}}));
                }
            }),
            Op::Image(place, image) => self.with(cluster, *place, |cluster, resource, _, key| {
                let containers = json!([{"name": "main", "image": format!("v{image}")}]);
                if !matches!(resource.plural, "jobs" | "cronjobs") {
                    let spec = json!({"spec": {"template": {"spec": {"containers": containers}}}});
                    patch(cluster, resource, key, &spec);
                }
            }),
            Op::Suspend(place, is_on) => self.with(cluster, *place, |cluster, resource, _, key| {
                if matches!(resource.plural, "jobs" | "cronjobs") {
                    patch(cluster, resource, key, &json!({"spec": {"suspend": is_on}}));
                }
            }),
            Op::Partition(place, partition) => self.with(cluster, *place, |cluster, resource, _, key| {
                if resource.plural == "statefulsets" {
                    let rolling = json!({"rollingUpdate": {"partition": partition}});
                    patch(cluster, resource, key, &json!({"spec": {"updateStrategy": rolling}}));
                }
            }),
            // Jobs come and go; the others are there to stay.
            Op::Delete(place) => self.with(cluster, *place, |cluster, resource, _, key| {
                if resource.plural == "jobs" {
                    let propagation = Some(trysail_core::plan::Propagation::Background);
                    let _ = cluster.delete_with(resource, key, None, propagation, Writer::Other);
                }
            }),
            Op::NewJob(variant) => {
                let face = FACES[usize::from(*variant) % 2];
                if self.kinds.iter().any(|kind| kind.controller == "job-controller") {
                    let name = format!("job-{}", cluster.revision());
                    let _ = cluster.create(Resource::jobs(face), job(face, &name, *variant), Writer::Other);
                }
            }
        }
    }

    /// Partitions and suspended Jobs end, schedules pause.
    fn heal(&self, cluster: &mut Cluster) {
        for (resource, object) in self.objects(cluster) {
            let spec = match resource.plural {
                "statefulsets" => json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}),
                "jobs" if object["spec"]["parallelism"] == 0 => json!({"suspend": false, "parallelism": 1}),
                "jobs" => json!({"suspend": false}),
                "cronjobs" => json!({"suspend": true}),
                _ => continue,
            };
            patch(cluster, resource, &key_of(&object), &json!({"spec": spec}));
        }
    }

    fn is_as_wanted(&self, cluster: &Cluster) -> Result<(), String> {
        let objects = self.objects(cluster);
        objects.iter().try_for_each(|(resource, object)| {
            if !object["spec"]["ttlSecondsAfterFinished"].is_null() {
                return Err(format!("{} is still to go", key_of(object)));
            }
            as_wanted(cluster, *resource, object)
        })
    }

    fn patience(&self) -> usize {
        1200
    }

    fn rest(&self) -> usize {
        60
    }
}

/// Hours of virtual time.
const HOURS: i64 = 4;

#[test]
fn four_hours_of_everything_end_in_peace() {
    let everything = Everything::new();
    let mut world = World::new(&everything);
    let steps = hostile(op());
    let mut runner = TestRunner::deterministic();
    let start = world.cluster.now;
    let until = start + SignedDuration::from_hours(HOURS);
    let mut played = 0;
    while world.cluster.now < until {
        let step = steps.new_tree(&mut runner).unwrap().current();
        played += 1;
        let context = |problem: String| format!("step {played} ({step:?}): {problem}");
        world.run(&step).map_err(context).unwrap();
        world.cluster.advance(SignedDuration::from_secs(3));
        world.cluster.actors();
        world.manager.round(&mut world.cluster);
        world.check().map_err(context).unwrap();
    }
    world.converge().unwrap();
    assert!(played > 500, "{played}");
    assert!(world.cluster.events(trysail_core::resource::PODS).len() > 1000);
    assert!(
        world
            .cluster
            .list(Resource::deployments(Face::Crd))
            .iter()
            .all(|object| { object["metadata"]["namespace"] == NAMESPACE })
    );
}
