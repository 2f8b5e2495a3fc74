//! Every permission the manager uses, with its reason: the one table that the chart's Role, the static pod's
//! Role and `check` are made of.

use serde_json::{Value, json};
use trysail_core::{
    Face, Resource,
    resource::{CONTROLLER_REVISIONS, NODES, PERSISTENT_VOLUME_CLAIMS, PODS},
};

use crate::{
    native_check,
    options::{ControllerName, Selection},
};

/// Verbs on one resource, and why they are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// API group.
    pub(crate) group: &'static str,
    /// Resource, with `/subresource` where one is meant.
    pub(crate) resource: String,
    /// Verbs, sorted.
    pub(crate) verbs: Vec<&'static str>,
    /// Restricts the rule to objects of that name.
    pub(crate) name: Option<String>,
    /// Why.
    pub(crate) why: &'static str,
}

const READ: [&str; 3] = ["get", "list", "watch"];

/// Rules that hold in every namespace.
pub(crate) fn cluster_rules(selection: &Selection) -> Vec<Rule> {
    let mut rules = Rules::default();
    for &face in selection.api.faces() {
        for controller in &selection.controllers {
            rules.controller(face, *controller);
            if selection.default_topology_spread && face == Face::Crd && controller.spreads_pods() {
                let why = "spread pods over zones where every node has one";
                rules.add(NODES.group, NODES.plural, &["list", "watch"], why);
            }
        }
    }
    rules.add("", "events", &["create", "patch"], "tell users what was done");
    rules.0
}

/// Rules in the namespace of the Lease, which has that name.
pub(crate) fn lease_rules(selection: &Selection, lease: &str) -> Vec<Rule> {
    let mut rules = Rules::default();
    rules.add("coordination.k8s.io", "leases", &["create"], "make the Lease when there is none");
    rules.add("coordination.k8s.io", "leases", &["get", "update"], "hold the Lease, or wait for it");
    if let Some(rule) = rules.0.last_mut() {
        rule.name = Some(lease.to_owned());
    }
    if selection.api.faces().contains(&Face::Native) {
        for kind in native_check::watched(&selection.controllers) {
            let why = "see whether kube-controller-manager still acts on the kind";
            rules.add(kind.group, kind.plural, &["create", "delete", "get"], why);
        }
    }
    rules.0
}

#[derive(Default)]
struct Rules(Vec<Rule>);

impl Rules {
    fn controller(&mut self, face: Face, controller: ControllerName) {
        match controller {
            ControllerName::Deployment => {
                let deployments = Resource::deployments(face);
                let sets = Resource::replica_sets(face);
                self.owner(deployments);
                self.add(deployments.group, deployments.plural, &["patch"], "roll back; mirror the revision");
                self.add(sets.group, sets.plural, &READ, "see the revisions");
                self.add(
                    sets.group,
                    sets.plural,
                    &["create", "delete", "patch"],
                    "make, scale and prune revisions",
                );
                self.add(
                    PODS.group,
                    PODS.plural,
                    &["list", "watch"],
                    "Recreate waits for the old pods to end",
                );
            }
            ControllerName::ReplicaSet => self.replicas(Resource::replica_sets(face)),
            ControllerName::ReplicationController => self.replicas(Resource::replication_controllers(face)),
            ControllerName::StatefulSet => self.stateful_sets(Resource::stateful_sets(face)),
            ControllerName::DaemonSet => {
                self.replicas(Resource::daemon_sets(face));
                self.revisions();
                self.add(NODES.group, NODES.plural, &["list", "watch"], "a pod on every node that is meant");
            }
            ControllerName::Job => {
                self.replicas(Resource::jobs(face));
                self.add(PODS.group, PODS.plural, &["patch"], "let counted pods go");
            }
            ControllerName::CronJob => {
                let jobs = Resource::jobs(face);
                self.owner(Resource::cron_jobs(face));
                self.add(jobs.group, jobs.plural, &READ, "see the runs; settle an unanswered create");
                self.add(jobs.group, jobs.plural, &["create", "delete"], "start, replace and prune runs");
            }
            ControllerName::TtlAfterFinished => {
                let jobs = Resource::jobs(face);
                self.add(
                    jobs.group,
                    jobs.plural,
                    &READ,
                    "see what has finished; settle an unanswered delete",
                );
                let why = "confirm that the Job is as it was seen, then delete it";
                self.add(jobs.group, jobs.plural, &["delete", "patch"], why);
            }
        }
    }

    fn stateful_sets(&mut self, owner: Resource) {
        let claims = PERSISTENT_VOLUME_CLAIMS;
        self.replicas(owner);
        self.revisions();
        self.add(claims.group, claims.plural, &READ, "see the pods' claims; settle an unanswered create");
        self.add(claims.group, claims.plural, &["create"], "make the pods' claims");
        self.add(claims.group, claims.plural, &["patch"], "persistentVolumeClaimRetentionPolicy");
        let why = "a scaled-down pod may own its claims: blockOwnerDeletion, checked by admission";
        self.add(PODS.group, "pods/finalizers", &["update"], why);
    }

    fn revisions(&mut self) {
        let revisions = CONTROLLER_REVISIONS;
        self.add(revisions.group, revisions.plural, &READ, "know the templates of old pods");
        let why = "record, renumber, adopt and prune templates";
        self.add(revisions.group, revisions.plural, &["create", "delete", "patch"], why);
    }

    fn replicas(&mut self, owner: Resource) {
        self.owner(owner);
        self.add(PODS.group, PODS.plural, &READ, "count replicas; settle an unanswered create");
        self.add(PODS.group, PODS.plural, &["create", "delete"], "add and remove replicas");
        self.add(PODS.group, PODS.plural, &["patch"], "adopt and release");
    }

    /// It is read by itself before something is adopted, and after a report that met a conflict or was not answered.
    fn owner(&mut self, owner: Resource) {
        self.add(owner.group, owner.plural, &READ, "read what is wanted; confirm the owner before adopting");
        self.add(owner.group, &format!("{}/status", owner.plural), &["patch"], "report");
        // Sent by nobody: admission checks it when an owner reference blocks the owner's deletion.
        self.add(
            owner.group,
            &format!("{}/finalizers", owner.plural),
            &["update"],
            "blockOwnerDeletion, checked by admission",
        );
    }

    /// Adds the verbs to the resource's rule, or a rule of its own.
    fn add(&mut self, group: &'static str, resource: &str, verbs: &[&'static str], why: &'static str) {
        let rule = self.0.iter_mut().find(|rule| {
            rule.group == group && rule.resource == resource && rule.name.is_none() && resource != "leases"
        });
        match rule {
            Some(rule) => {
                rule.verbs.extend(verbs);
                rule.verbs.sort_unstable();
                rule.verbs.dedup();
            }
            None => {
                let mut verbs = verbs.to_vec();
                verbs.sort_unstable();
                self.0.push(Rule { group, resource: resource.to_owned(), verbs, name: None, why });
            }
        }
    }
}

/// The rules as entries of a Role or ClusterRole.
pub(crate) fn to_policy_rules(rules: &[Rule]) -> Vec<Value> {
    rules
        .iter()
        .map(|rule| {
            let mut entry =
                json!({"apiGroups": [rule.group], "resources": [rule.resource], "verbs": rule.verbs});
            if let Some(name) = &rule.name {
                entry["resourceNames"] = json!([name]);
            }
            entry
        })
        .collect()
}

/// A List of ClusterRole, Role and their bindings for `subject` (an entry of `subjects`).
pub(crate) fn manifest(selection: &Selection, lease_namespace: &str, lease: &str, subject: &Value) -> Value {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let api_version = format!("{GROUP}/v1");
    let reference = |kind: &str| json!({"apiGroup": GROUP, "kind": kind, "name": "trysail-manager"});
    let name = json!({"name": "trysail-manager"});
    let in_namespace = json!({"name": "trysail-manager", "namespace": lease_namespace});
    json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": api_version, "kind": "ClusterRole", "metadata": name,
             "rules": to_policy_rules(&cluster_rules(selection))},
            {"apiVersion": api_version, "kind": "ClusterRoleBinding", "metadata": name,
             "roleRef": reference("ClusterRole"), "subjects": [subject]},
            {"apiVersion": api_version, "kind": "Role", "metadata": in_namespace,
             "rules": to_policy_rules(&lease_rules(selection, lease))},
            {"apiVersion": api_version, "kind": "RoleBinding", "metadata": in_namespace,
             "roleRef": reference("Role"), "subjects": [subject]},
        ],
    })
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;
    use crate::options::{Api, LEASE};

    fn selection(api: Api, controllers: &[ControllerName]) -> Selection {
        Selection { api, controllers: controllers.to_vec(), default_topology_spread: true }
    }

    #[test]
    fn rules_follow_api_and_controllers() {
        let only_sets = cluster_rules(&selection(Api::Native, &[ControllerName::ReplicaSet]));
        assert!(
            only_sets.iter().all(|rule| rule.resource != "deployments" && !rule.group.contains("trysail"))
        );
        let crd = cluster_rules(&selection(Api::Crd, &[ControllerName::Deployment]));
        assert!(crd.iter().all(|rule| rule.group != "apps"));
        assert!(crd.iter().all(|rule| rule.resource != "pods" || !rule.verbs.contains(&"create")));
        let reads_nodes =
            |selection: Selection| cluster_rules(&selection).iter().any(|rule| rule.resource == "nodes");
        assert!(reads_nodes(selection(Api::Native, &[ControllerName::DaemonSet])));
        assert!(!reads_nodes(selection(Api::Crd, &[ControllerName::Deployment, ControllerName::Job])));
        let spreading = selection(Api::Crd, &[ControllerName::StatefulSet]);
        assert!(!reads_nodes(Selection { default_topology_spread: false, ..spreading.clone() }));
        assert!(!reads_nodes(Selection { api: Api::Native, ..spreading.clone() }));
        assert!(reads_nodes(spreading));
    }

    /// A manager with a Lease of another name must be allowed to hold that one.
    #[test]
    fn the_lease_is_the_one_that_was_named() {
        let rules = lease_rules(&selection(Api::Crd, &[]), "blue");
        let named: Vec<_> = rules.iter().filter_map(|rule| rule.name.as_deref()).collect();
        assert_eq!(named, ["blue"]);
    }

    /// The cluster of this machine gives the static pod exactly these permissions.
    #[test]
    fn the_static_pods_permissions_are_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../hack/cluster/rbac/native-manager.json");
        let all = ControllerName::value_variants();
        let user =
            json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "trysail-manager"});
        let manifest = manifest(&selection(Api::Native, all), "kube-system", LEASE, &user);
        let text = serde_json::to_string_pretty(&manifest).unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), text, "run the test again with UPDATE=1");
    }

    #[test]
    fn no_wildcards_and_every_rule_says_why() {
        let all = ControllerName::value_variants();
        let selection = selection(Api::Both, all);
        for rule in cluster_rules(&selection).iter().chain(&lease_rules(&selection, LEASE)) {
            assert!(
                !rule.why.is_empty() && !rule.resource.contains('*') && !rule.group.contains('*'),
                "{rule:?}"
            );
            assert!(!rule.resource.contains("secrets"), "{rule:?}");
        }
    }
}
