//! The revisions of a workload, read from a Deployment's ReplicaSets or from ControllerRevisions, and what undoing to
//! one of them changes.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value, json};
use trysail_core::{Template, template::POD_TEMPLATE_HASH};

use super::{change::is_paused, controller_revisions};
use crate::{edit::at, text};

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// Annotations that belong to one object and are not carried from a ReplicaSet to its Deployment.
const KEPT_ON_UNDO: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

/// ReplicaSets, or what looks like them, by revision.
#[derive(Debug, Default)]
pub(crate) struct History(BTreeMap<i64, Value>);

impl History {
    /// Of those `sets` that the Deployment with uid `owner` controls.
    pub(crate) fn new(owner: &Value, sets: Vec<Value>) -> Self {
        let controlled = sets.into_iter().filter(|set| is_controlled_by(set, owner));
        Self(controlled.filter_map(|set| Some((revision(&set)?, set))).collect())
    }

    /// Of those ControllerRevisions that `owner` controls.
    pub(crate) fn of_records(owner: &Value, records: Vec<Value>) -> Self {
        let controlled = records.into_iter().filter(|record| is_controlled_by(record, owner));
        Self(controlled.filter_map(|record| controller_revisions::read(&record)).collect())
    }

    /// The table, oldest first.
    pub(crate) fn table(&self) -> String {
        if self.0.is_empty() {
            return "No rollout history found.\n".to_owned();
        }
        let rows = self
            .0
            .iter()
            .map(|(revision, set)| [revision.to_string(), change_cause(set).unwrap_or("<none>").to_owned()]);
        text::table(["REVISION", "CHANGE-CAUSE"], rows)
    }

    /// For machines.
    pub(crate) fn to_json(&self, only: i64) -> Result<Value> {
        if only > 0 {
            self.at(only)?;
        }
        let revisions: Vec<Value> = self
            .0
            .iter()
            .filter(|(revision, _)| only == 0 || **revision == only)
            .map(|(revision, set)| {
                let source =
                    if set["kind"] == "ControllerRevision" { "controllerRevision" } else { "replicaSet" };
                json!({
                    "revision": revision,
                    "changeCause": change_cause(set),
                    source: set["metadata"]["name"],
                    "template": template_without_hash(set),
                })
            })
            .collect();
        Ok(json!({ "revisions": revisions }))
    }

    /// The pod template of a revision in YAML.
    pub(crate) fn template(&self, revision: i64) -> Result<String> {
        let set = self.at(revision)?;
        let mut template = set["spec"]["template"].clone();
        if let Some(cause) = change_cause(set) {
            *at(&mut template, &["metadata", "annotations", CHANGE_CAUSE]) = cause.into();
        }
        text::yaml(&template)
    }

    /// The ReplicaSet to go back to: that of `revision`, or for 0 the one before the newest.
    pub(crate) fn target(&self, kind: &str, name: &str, revision: i64) -> Result<(i64, &Value)> {
        if revision > 0 {
            return Ok((revision, self.at(revision)?));
        }
        let previous = self.0.iter().nth_back(1);
        let (revision, set) =
            previous.ok_or_else(|| anyhow!("no rollout history found for {kind} \"{name}\""))?;
        Ok((*revision, set))
    }

    fn at(&self, revision: i64) -> Result<&Value> {
        self.0.get(&revision).ok_or_else(|| {
            let known: Vec<String> = self.0.keys().map(i64::to_string).collect();
            anyhow!("unable to find specified revision {revision} in history (it has: {})", known.join(", "))
        })
    }
}

/// What undoing asks of a workload.
#[derive(Debug)]
pub(crate) enum Undo {
    /// The workload as it should become.
    Change(Value),
    /// Its template is that of this revision already.
    Skipped(i64),
}

/// The workload with the template of a former revision; a Deployment with its annotations, too.
pub(crate) fn undo(deployment: &Value, history: &History, to_revision: i64) -> Result<Undo> {
    let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
    let kind = deployment["kind"].as_str().unwrap_or("Deployment").to_lowercase();
    let (revision, set) = history.target(&kind, name, to_revision)?;
    if is_paused(deployment) {
        bail!("you cannot rollback a paused deployment; resume it first with 'rollout resume' and try again");
    }
    let parse = |object: &Value| serde_json::from_value::<Template>(object["spec"]["template"].clone());
    if parse(deployment)?.same_pods(&parse(set)?) {
        return Ok(Undo::Skipped(revision));
    }
    let mut changed = deployment.clone();
    *at(&mut changed, &["spec", "template"]) = template_without_hash(set);
    // A ControllerRevision remembers its owner's annotations for the record only.
    if kind == "deployment" {
        *at(&mut changed, &["metadata", "annotations"]) = annotations(deployment, set).into();
    }
    Ok(Undo::Change(changed))
}

fn annotations(deployment: &Value, set: &Value) -> Map<String, Value> {
    let of = |object: &Value, kept: bool| {
        let annotations = object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        annotations.into_iter().filter(move |(key, _)| KEPT_ON_UNDO.contains(&key.as_str()) == kept)
    };
    of(deployment, true).chain(of(set, false)).collect()
}

/// The template as the user wrote it.
fn template_without_hash(set: &Value) -> Value {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(POD_TEMPLATE_HASH);
    }
    template
}

fn change_cause(set: &Value) -> Option<&str> {
    set["metadata"]["annotations"][CHANGE_CAUSE].as_str().filter(|cause| !cause.is_empty())
}

fn revision(set: &Value) -> Option<i64> {
    set["metadata"]["annotations"][REVISION].as_str()?.parse().ok()
}

/// The revision that a Deployment's own annotation tells.
pub(crate) fn running_revision(deployment: &Value) -> i64 {
    revision(deployment).unwrap_or(0)
}

/// True when `owner` is the controlling owner of `child`.
pub(crate) fn is_controlled_by(child: &Value, owner: &Value) -> bool {
    let owners = child["metadata"]["ownerReferences"].as_array();
    owners
        .into_iter()
        .flatten()
        .any(|reference| reference["controller"] == true && reference["uid"] == owner["metadata"]["uid"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::merge_patch;

    fn deployment(image: &str) -> Value {
        json!({"metadata": {"name": "web", "uid": "d", "annotations": {
                "deployment.kubernetes.io/revision": "3", "kubernetes.io/change-cause": "now", "team": "shop"}},
            "spec": {"replicas": 3, "template": template(image, None)}})
    }

    fn template(image: &str, hash: Option<&str>) -> Value {
        let mut template = json!({"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": image}]}});
        if let Some(hash) = hash {
            template["metadata"]["labels"][POD_TEMPLATE_HASH] = hash.into();
        }
        template
    }

    fn set(owner: &str, revision: &str, image: &str, cause: Option<&str>) -> Value {
        let mut set = json!({
            "metadata": {"name": format!("web-{revision}"),
                "annotations": {"deployment.kubernetes.io/revision": revision,
                    "deployment.kubernetes.io/desired-replicas": "3"},
                "ownerReferences": [{"uid": owner, "controller": true}]},
            "spec": {"replicas": 0, "template": template(image, Some("hash"))}});
        if let Some(cause) = cause {
            set["metadata"]["annotations"][CHANGE_CAUSE] = cause.into();
        }
        set
    }

    fn history() -> History {
        History::new(
            &deployment("c"),
            vec![
                set("d", "3", "c", None),
                set("d", "1", "a", Some("first of all")),
                set("d", "2", "b", Some("second")),
                set("other", "9", "z", None),
            ],
        )
    }

    #[test]
    fn the_table_shows_own_revisions_in_order() {
        insta::assert_snapshot!(history().table(), @r"
        REVISION  CHANGE-CAUSE
        1         first of all
        2         second
        3         <none>
        ");
        assert_eq!(History::default().table(), "No rollout history found.\n");
    }

    #[test]
    fn a_revision_shows_its_template() {
        insta::assert_snapshot!(history().template(1).unwrap());
        let error = history().template(7).unwrap_err().to_string();
        assert_eq!(error, "unable to find specified revision 7 in history (it has: 1, 2, 3)");
    }

    #[test]
    fn undo_restores_template_and_annotations_of_the_previous_revision() {
        let before = deployment("c");
        let Undo::Change(after) = undo(&before, &history(), 0).unwrap() else { panic!("skipped") };
        assert_eq!(
            merge_patch(&before, &after).unwrap(),
            json!({
                "metadata": {"annotations": {"kubernetes.io/change-cause": "second", "team": null}},
                "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "b"}]}}},
            })
        );
        let Undo::Change(after) = undo(&before, &history(), 1).unwrap() else { panic!("skipped") };
        assert_eq!(after["spec"]["template"], template("a", None), "without the hash label");
    }

    #[test]
    fn undo_refuses_as_kubectl_does() {
        assert!(matches!(undo(&deployment("c"), &history(), 3).unwrap(), Undo::Skipped(3)));
        let mut paused = deployment("c");
        paused["spec"]["paused"] = true.into();
        assert!(undo(&paused, &history(), 1).unwrap_err().to_string().contains("paused"));
        assert!(undo(&deployment("c"), &history(), 12).is_err());
        let alone = History::new(&deployment("c"), vec![set("d", "3", "c", None)]);
        let error = undo(&deployment("c"), &alone, 0).unwrap_err().to_string();
        assert_eq!(error, "no rollout history found for deployment \"web\"");
    }

    fn record(owner: &str, revision: i64, image: &str) -> Value {
        let mut template = template(image, None);
        template["$patch"] = "replace".into();
        json!({"metadata": {"name": format!("db-{revision}"), "annotations": {CHANGE_CAUSE: image, "team": "shop"},
                "ownerReferences": [{"uid": owner, "controller": true}]},
            "data": {"spec": {"template": template}}, "revision": revision})
    }

    #[test]
    fn a_stateful_set_goes_back_to_a_controller_revision() {
        let mut set = deployment("c");
        set["kind"] = "StatefulSet".into();
        let records = vec![record("d", 4, "c"), record("d", 3, "a"), record("other", 9, "z")];
        let history = History::of_records(&set, records);
        insta::assert_snapshot!(history.table(), @r"
        REVISION  CHANGE-CAUSE
        3         a
        4         c
        ");
        assert_eq!(history.to_json(3).unwrap()["revisions"][0]["controllerRevision"], "db-3");
        assert!(!history.template(3).unwrap().contains("$patch"));
        let Undo::Change(after) = undo(&set, &history, 0).unwrap() else { panic!("skipped") };
        let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "a"}]}}}});
        assert_eq!(merge_patch(&set, &after).unwrap(), image, "nothing but the template");
        assert!(matches!(undo(&set, &history, 4).unwrap(), Undo::Skipped(4)));
        let error = undo(&set, &History::default(), 0).unwrap_err().to_string();
        assert_eq!(error, "no rollout history found for statefulset \"web\"");
    }
}
