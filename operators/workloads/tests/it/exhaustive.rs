//! One script per kind, played with a fault at every single action.

use serde_json::{Value, json};
use trysail_core::{Face, Key, Resource};
use trysail_testkit::{
    Cluster,
    cluster::Writer,
    fixtures::{self, NAMESPACE},
    kinds,
    manager::Registration,
    property::{Step, Subject, exhaust},
};

/// A Deployment, or a ReplicaSet, and its users.
struct Replicas {
    face: Face,
    resource: Resource,
    manifest: Value,
}

#[derive(Clone, Debug)]
struct Patch(Value);

impl Replicas {
    fn key() -> Key {
        Key::new(NAMESPACE, "web")
    }
}

impl Subject for Replicas {
    type Step = Patch;

    fn controllers(&self) -> Vec<Registration> {
        vec![kinds::deployments(self.face), kinds::replica_sets(self.face)]
    }

    fn set_up(&self, cluster: &mut Cluster) {
        cluster.create(self.resource, self.manifest.clone(), Writer::Other).unwrap();
    }

    fn step(&self, cluster: &mut Cluster, Patch(patch): &Patch) {
        cluster.patch(self.resource, &Self::key(), (None, 0), None, patch, Writer::Other).unwrap();
    }

    fn is_as_wanted(&self, cluster: &Cluster) -> Result<(), String> {
        let object = cluster.get(self.resource, &Self::key()).unwrap();
        let (spec, status) = (&object["spec"], &object["status"]);
        let wanted = spec["replicas"].as_i64().unwrap();
        let is_there = |name: &str| status[name].as_i64().unwrap_or(0) == wanted;
        let is_seen = status["observedGeneration"] == object["metadata"]["generation"];
        let is_updated = self.resource.plural != "deployments" || is_there("updatedReplicas");
        if is_seen && is_updated && is_there("replicas") && is_there("availableReplicas") {
            return Ok(());
        }
        Err(format!("{wanted} wanted: {status}"))
    }
}

fn seconds(count: usize) -> impl Iterator<Item = Step<Patch>> {
    std::iter::repeat_n(Step::Second, count)
}

fn patch(patch: Value) -> impl Iterator<Item = Step<Patch>> {
    std::iter::once(Step::User(Patch(patch)))
}

#[test]
fn a_rollout_with_a_fault_at_every_action() {
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "v2"}]}}}});
    let script: Vec<_> = seconds(4)
        .chain(patch(image))
        .chain(seconds(3))
        .chain(patch(json!({"spec": {"replicas": 4}})))
        .chain(seconds(9))
        .collect();
    for face in [Face::Crd, Face::Native] {
        let manifest = fixtures::deployment(face, "web", 3, "v1");
        let subject = Replicas { face, resource: Resource::deployments(face), manifest };
        let runs = exhaust(&subject, &script).unwrap();
        assert!(runs > 100, "{runs}");
    }
}

#[test]
fn a_replica_set_with_a_fault_at_every_action() {
    let script: Vec<_> = seconds(3)
        .chain(patch(json!({"spec": {"replicas": 5}})))
        .chain(seconds(1))
        .chain(patch(json!({"spec": {"replicas": 2}})))
        .chain(seconds(2))
        .collect();
    let face = Face::Crd;
    let manifest = fixtures::replica_set(face, "web", 3, "v1");
    let subject = Replicas { face, resource: Resource::replica_sets(face), manifest };
    assert!(exhaust(&subject, &script).unwrap() > 50);
}
