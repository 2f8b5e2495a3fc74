//! What purging does, in which order, decided from what is there. Nothing is sent from here.
//!
//! Owners go before what they own: a ReplicaSet that is deleted first would be made anew by its Deployment's controller.
//! Objects go before their definitions: once a definition is gone, the garbage collector cannot look an owner up any
//! more and pods would hang in the air.

use std::fmt;

use serde_json::Value;
use trysail_core::Resource;

use crate::text::{count, indented};

/// The API groups of Trysail's workload kinds.
pub(super) const GROUPS: [&str; 3] = ["apps.trysail.dev", "batch.trysail.dev", "autoscaling.trysail.dev"];

/// Owners first. Kinds that are not listed own nothing that is.
const OWNERS_FIRST: [&str; 3] = ["CronJob", "Deployment", "Job"];

/// Finalizers that Kubernetes' own garbage collector serves.
const COLLECTORS: [&str; 2] = ["orphan", "foregroundDeletion"];

/// A CustomResourceDefinition of ours with its objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    /// `deployments.apps.trysail.dev`
    pub(super) name: String,
    pub(super) resource: Resource,
    pub(super) objects: Vec<Held>,
}

/// An object of one of our kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    /// Finalizers that only Trysail's controllers serve: without them nobody would ever remove these.
    pub(super) own_finalizers: Vec<String>,
    /// Those of others, who have to remove them.
    pub(super) foreign_finalizers: Vec<String>,
    /// It is being deleted already.
    pub(super) deleting: bool,
}

/// What becomes of the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Orphan,
    Delete,
    /// The user has not said.
    Unsaid,
}

/// Reads a CustomResourceDefinition; `None` when it is none of ours.
pub(super) fn definition(crd: &Value) -> Option<Definition> {
    // Names of a `Resource` live as long as the program, which ends after this one command.
    let leaked = |value: &Value| -> Option<&'static str> { Some(value.as_str()?.to_owned().leak()) };
    let spec = &crd["spec"];
    let group = GROUPS.into_iter().find(|group| spec["group"] == *group)?;
    let version = spec["versions"].as_array()?.iter().find(|version| version["served"] == true)?;
    Some(Definition {
        name: crd["metadata"]["name"].as_str()?.to_owned(),
        resource: Resource {
            group,
            version: leaked(&version["name"])?,
            kind: leaked(&spec["names"]["kind"])?,
            plural: leaked(&spec["names"]["plural"])?,
        },
        objects: Vec::new(),
    })
}

/// Reads an object.
pub(super) fn held(object: &Value) -> Held {
    let metadata = &object["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
    let finalizers = metadata["finalizers"].as_array().into_iter().flatten();
    let finalizers = finalizers.filter_map(Value::as_str).map(str::to_owned);
    let (own, foreign): (Vec<_>, Vec<_>) = finalizers.partition(|finalizer| is_ours(finalizer));
    Held {
        namespace: text("namespace"),
        name: text("name"),
        uid: text("uid"),
        own_finalizers: own,
        foreign_finalizers: foreign.into_iter().filter(|name| !COLLECTORS.contains(&name.as_str())).collect(),
        deleting: metadata["deletionTimestamp"].is_string(),
    }
}

/// `trysail.dev/…` or `….trysail.dev/…`
pub(super) fn is_ours(finalizer: &str) -> bool {
    let domain = finalizer.split('/').next().unwrap_or_default();
    domain == "trysail.dev" || domain.ends_with(".trysail.dev")
}

/// True when an owner reference is of a wanted kind and group.
pub(super) fn is_owned(object: &Value, wanted: impl Fn(&str, &str) -> bool) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().any(|owner| refers(owner, &wanted))
}

fn refers(owner: &Value, wanted: impl Fn(&str, &str) -> bool) -> bool {
    let group = owner["apiVersion"]
        .as_str()
        .and_then(|version| version.split_once('/'))
        .map_or("", |(group, _)| group);
    wanted(owner["kind"].as_str().unwrap_or_default(), group)
}

/// The owner references that remain when every object of `definition` is gone; `None` when there is none of it.
pub(super) fn released(object: &Value, definition: &Definition) -> Option<Vec<Value>> {
    let wanted =
        |kind: &str, group: &str| kind == definition.resource.kind && group == definition.resource.group;
    if !is_owned(object, wanted) {
        return None;
    }
    let owners = object["metadata"]["ownerReferences"].as_array();
    Some(owners.into_iter().flatten().filter(|owner| !refers(owner, wanted)).cloned().collect())
}

/// Puts owners before what they own.
pub(super) fn in_order(mut definitions: Vec<Definition>) -> Vec<Definition> {
    definitions.sort_by_key(|definition| {
        let owner = OWNERS_FIRST.iter().position(|kind| *kind == definition.resource.kind);
        (owner.unwrap_or(OWNERS_FIRST.len()), definition.name.clone())
    });
    definitions
}

/// What there is and what would be done with it.
pub(super) struct Purge<'a> {
    pub(super) definitions: &'a [Definition],
    /// Pods owned by their objects.
    pub(super) pods: usize,
    /// Pods with finalizers of ours, which Jobs put on them.
    pub(super) held_pods: usize,
    pub(super) fate: Fate,
}

impl Purge<'_> {
    /// True when somebody's pods depend on what the user has not said.
    pub(super) fn needs_fate(&self) -> bool {
        self.fate == Fate::Unsaid
            && (self.pods > 0 || self.definitions.iter().any(|definition| !definition.objects.is_empty()))
    }

    /// What is there, for `uninstall` without `--purge`.
    pub(super) fn inventory(&self) -> String {
        let lines = self
            .definitions
            .iter()
            .map(|definition| format!("{}: {}", definition.name, count(definition.objects.len(), "object")));
        let lines: Vec<_> = lines.chain([format!("{} owned by them", count(self.pods, "pod"))]).collect();
        indented(&lines.join("\n"), 2)
    }
}

impl fmt::Display for Purge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut step = 0;
        let mut next = || {
            step += 1;
            step
        };
        let objects = self.definitions.iter().flat_map(|definition| &definition.objects);
        let own = objects.filter(|object| !object.own_finalizers.is_empty()).count();
        let held = [(own, "object"), (self.held_pods, "pod")].into_iter().filter(|(number, _)| *number > 0);
        let held: Vec<_> = held.map(|(number, what)| count(number, what)).collect();
        if !held.is_empty() {
            writeln!(f, "note: Trysail's own finalizers are removed from {}", held.join(" and "))?;
        }
        for Definition { name, objects, .. } in self.definitions.iter().filter(|d| !d.objects.is_empty()) {
            let how = match self.fate {
                Fate::Orphan => "what they own is released first and stays, owned by nobody",
                Fate::Delete => "the garbage collector deletes what they own",
                Fate::Unsaid => "what becomes of what they own is for you to say",
            };
            writeln!(f, "{}. delete {} of {name}; {how}", next(), count(objects.len(), "object"))?;
        }
        match (self.pods, self.fate) {
            (0, _) | (_, Fate::Unsaid) => {}
            (pods, Fate::Orphan) => {
                writeln!(
                    f,
                    "{}. leave {} running; nobody replaces one that ends",
                    next(),
                    count(pods, "pod")
                )?;
            }
            (pods, Fate::Delete) => writeln!(f, "{}. wait for the end of {}", next(), count(pods, "pod"))?,
        }
        for Definition { name, .. } in self.definitions {
            writeln!(f, "{}. delete the CustomResourceDefinition {name}", next())?;
        }
        for (definition, object) in
            self.definitions.iter().flat_map(|d| d.objects.iter().map(move |o| (d, o)))
        {
            if !object.foreign_finalizers.is_empty() {
                writeln!(
                    f,
                    "note: {} {}/{} is held by {}; whoever set that has to remove it",
                    definition.name,
                    object.namespace,
                    object.name,
                    object.foreign_finalizers.join(", ")
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn crd(group: &str, kind: &str) -> Value {
        let plural = format!("{}s", kind.to_lowercase());
        json!({"metadata": {"name": format!("{plural}.{group}")}, "spec": {"group": group,
            "names": {"kind": kind, "plural": plural},
            "versions": [{"name": "v1alpha1", "served": false}, {"name": "v1", "served": true}]}})
    }

    fn definitions() -> Vec<Definition> {
        let kinds = ["ReplicaSet", "ReplicationController", "Deployment"];
        let mut all = in_order(kinds.iter().filter_map(|kind| definition(&crd(GROUPS[0], kind))).collect());
        let object = |name: &str, finalizers: &Value| {
            held(&json!({"metadata": {"name": name, "namespace": "shop", "finalizers": finalizers}}))
        };
        all[0].objects = vec![object("web", &json!(["trysail.dev/x", "example.com/y", "orphan"]))];
        all[1].objects = vec![object("web-a", &json!(null)), object("web-b", &json!(["foregroundDeletion"]))];
        all
    }

    #[test]
    fn owners_go_first_and_definitions_last() {
        let definitions = definitions();
        let said = |fate| Purge { definitions: &definitions, pods: 3, held_pods: 2, fate }.to_string();
        insta::assert_snapshot!(said(Fate::Orphan), @r"
        note: Trysail's own finalizers are removed from 1 object and 2 pods
        1. delete 1 object of deployments.apps.trysail.dev; what they own is released first and stays, owned by nobody
        2. delete 2 objects of replicasets.apps.trysail.dev; what they own is released first and stays, owned by nobody
        3. leave 3 pods running; nobody replaces one that ends
        4. delete the CustomResourceDefinition deployments.apps.trysail.dev
        5. delete the CustomResourceDefinition replicasets.apps.trysail.dev
        6. delete the CustomResourceDefinition replicationcontrollers.apps.trysail.dev
        note: deployments.apps.trysail.dev shop/web is held by example.com/y; whoever set that has to remove it
        ");
        insta::assert_snapshot!(said(Fate::Delete), @r"
        note: Trysail's own finalizers are removed from 1 object and 2 pods
        1. delete 1 object of deployments.apps.trysail.dev; the garbage collector deletes what they own
        2. delete 2 objects of replicasets.apps.trysail.dev; the garbage collector deletes what they own
        3. wait for the end of 3 pods
        4. delete the CustomResourceDefinition deployments.apps.trysail.dev
        5. delete the CustomResourceDefinition replicasets.apps.trysail.dev
        6. delete the CustomResourceDefinition replicationcontrollers.apps.trysail.dev
        note: deployments.apps.trysail.dev shop/web is held by example.com/y; whoever set that has to remove it
        ");
    }

    #[test]
    fn pods_are_not_touched_unless_their_fate_is_said() {
        let mut definitions = definitions();
        assert!(Purge { definitions: &definitions, pods: 3, held_pods: 0, fate: Fate::Unsaid }.needs_fate());
        assert!(!Purge { definitions: &definitions, pods: 3, held_pods: 0, fate: Fate::Delete }.needs_fate());
        for definition in &mut definitions {
            definition.objects.clear();
        }
        assert!(!Purge { definitions: &definitions, pods: 0, held_pods: 0, fate: Fate::Unsaid }.needs_fate());
    }

    #[test]
    fn releasing_keeps_the_references_to_others() {
        let deployment = definition(&crd("apps.trysail.dev", "Deployment")).unwrap();
        let own = json!({"apiVersion": "apps.trysail.dev/v1", "kind": "Deployment", "name": "web"});
        let others = [
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}),
            json!({"apiVersion": "apps.trysail.dev/v1", "kind": "ReplicaSet", "name": "web"}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "web"}),
        ];
        let object = |owners: &[Value]| json!({"metadata": {"ownerReferences": owners}});
        let mut all = others.to_vec();
        all.insert(1, own);
        assert_eq!(released(&object(&all), &deployment), Some(others.to_vec()));
        assert_eq!(released(&object(&others), &deployment), None);
        assert_eq!(released(&json!({"metadata": {}}), &deployment), None);
        assert!(is_owned(&object(&others), |_, group| group.is_empty()));
    }

    #[test]
    fn only_our_definitions_and_finalizers_are_ours() {
        assert_eq!(definition(&crd("apps.trysail.dev", "Deployment")).unwrap().resource.version, "v1");
        assert_eq!(definition(&crd("apps.kruise.io", "Deployment")), None);
        assert_eq!(definition(&crd("csi.trysail.dev", "Volume")), None, "not a workload kind");
        assert!(is_ours("trysail.dev/a") && is_ours("apps.trysail.dev/a"));
        assert!(!is_ours("nottrysail.dev/a") && !is_ours("foregroundDeletion") && !is_ours(""));
    }
}
