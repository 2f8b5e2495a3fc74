//! What the history is found to be, and what is done about it.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use trysail_core::{
    Action, Face, Labels, Meta, Resource, Selector, Template,
    plan::{OwnerReference, Verb},
    pod::Pod,
};

use super::{Dialect, History, RevisionOwner, data, name};
use crate::views::ControllerRevision;

/// What kube-controller-manager 1.36 wrote for a template as an API server of that version sends it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Golden {
    name: String,
    template: Box<RawValue>,
    hash: String,
    stateful_set: Box<RawValue>,
    daemon_set: Box<RawValue>,
}

fn golden() -> Vec<Golden> {
    serde_json::from_str(include_str!("../../tests/revisions/golden.json")).unwrap()
}

fn stored(data: &RawValue, revision: i64) -> ControllerRevision {
    let text = format!(
        r#"{{"metadata":{{"name":"r","namespace":"shop","uid":"u"}},"revision":{revision},"data":{}}}"#,
        data.get()
    );
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_we_write_is_what_kube_controller_manager_writes_byte_for_byte() {
    let golden = golden();
    assert!(golden.len() >= 30);
    for Golden { name, template, hash, stateful_set, daemon_set } in golden {
        let template: Template = serde_json::from_str(template.get()).unwrap();
        let ours = data::of(Dialect::StatefulSet, &template);
        assert_eq!(ours, stateful_set.get(), "{name}");
        assert_eq!(data::of(Dialect::DaemonSet, &template), daemon_set.get(), "{name}");
        assert_eq!(super::name::hash(&ours, 0), hash, "{name}");
    }
}

/// Each template is found again in its own record, and in no other one's.
#[test]
fn what_kube_controller_manager_wrote_is_understood() {
    let golden = golden();
    let templates: Vec<Template> =
        golden.iter().map(|entry| serde_json::from_str(entry.template.get()).unwrap()).collect();
    for (at, template) in templates.iter().enumerate() {
        let equal: Vec<_> = golden
            .iter()
            .filter(|entry| {
                let records = [&entry.stateful_set, &entry.daemon_set].map(|data| stored(data, 1).template);
                let found = records.map(|record| record.as_ref() == Some(template));
                assert_eq!(found[0], found[1], "{}", entry.name);
                found[0]
            })
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(equal, [golden[at].name.as_str()]);
    }
}

/// Written by versions before 1.34, by other serializers, with other spaces: nothing of it restarts a pod.
#[test]
fn a_byte_of_difference_is_no_other_revision() {
    for entry in golden() {
        let template: Template = serde_json::from_str(entry.template.get()).unwrap();
        let mut value: Value = serde_json::from_str(entry.stateful_set.get()).unwrap();
        value["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
        let spec = &mut value["spec"]["template"]["spec"];
        if spec.get("imagePullSecrets").is_none() {
            spec["imagePullSecrets"] = json!([]);
        }
        let loose = serde_json::to_string_pretty(&value).unwrap();
        let revision = stored(&RawValue::from_string(loose).unwrap(), 1);
        assert!(revision.template == Some(template), "{}", entry.name);
    }
}

const OWNER: &str = r#"{"name":"web","namespace":"shop","uid":"uid-web"}"#;

/// An owner of the image `v2`, with these records: `NAME REVISION IMAGE` and `orphan`, `foreign`, `other` (its
/// labels do not match), `going`.
struct Case {
    dialect: Dialect,
    reference: OwnerReference,
    meta: Meta,
    selector: Selector,
    template: Template,
    records: Vec<Arc<ControllerRevision>>,
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn record(text: &str) -> Arc<ControllerRevision> {
    let words: Vec<&str> = text.split(' ').collect();
    let (name, flags) = (words[0], &words[3..]);
    let mut template = template(words[2]);
    template["$patch"] = "replace".into();
    let has = |flag: &str| flags.contains(&flag);
    let uid = if has("foreign") { "uid-else" } else { "uid-web" };
    let owners = if has("orphan") { json!([]) } else { json!([{"uid": uid, "controller": true}]) };
    let app = if has("other") { "other" } else { "web" };
    let hash = name.trim_start_matches("web-");
    let metadata = json!({"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": "7",
        "labels": {"app": app, "controller-revision-hash": hash}, "ownerReferences": owners,
        "deletionTimestamp": has("going").then(|| Timestamp::UNIX_EPOCH.to_string())});
    let revision: i64 = words[1].parse().unwrap();
    let value = json!({"metadata": metadata, "revision": revision, "data": {"spec": {"template": template}}});
    Arc::new(serde_json::from_value(value).unwrap())
}

impl Case {
    fn of(dialect: Dialect, records: &[&str]) -> Self {
        let meta: Meta = serde_json::from_str(OWNER).unwrap();
        Self {
            dialect,
            reference: OwnerReference {
                resource: Resource::stateful_sets(Face::Native),
                key: meta.key.clone(),
                uid: meta.uid.clone(),
            },
            selector: Selector::from_labels([("app", "web")].into_iter().collect()),
            template: serde_json::from_value(template("v2")).unwrap(),
            records: records.iter().map(|text| record(text)).collect(),
            meta,
        }
    }

    fn owner(&self) -> RevisionOwner<'_> {
        RevisionOwner {
            dialect: self.dialect,
            reference: &self.reference,
            meta: &self.meta,
            selector: &self.selector,
            template: &self.template,
            collisions: 0,
        }
    }

    fn history(&self) -> History {
        let is_taken = |name: &str| self.records.iter().any(|held| &*held.meta.key.name == name);
        History::of(&self.owner(), &self.records, is_taken)
    }

    fn writes(&self) -> Vec<String> {
        let annotations: Labels = [("kubernetes.io/change-cause", "v2")].into_iter().collect();
        shown(&self.history().writes(&self.owner(), &annotations))
    }

    fn truncated(&self, limit: i32, pods: &[&str]) -> Vec<String> {
        let pods: Vec<Arc<Pod>> = pods.iter().map(|label| pod(label)).collect();
        let deletions = self.history().truncate(limit, &pods, |held| &*held.meta.key.name == "web-current");
        deletions.iter().map(|action| action.target.key.name.to_string()).collect()
    }
}

fn shown(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .map(|action| match &action.verb {
            Verb::Create { .. } => format!("create {}", action.target.key.name),
            _ => action.to_string(),
        })
        .collect()
}

fn pod(label: &str) -> Arc<Pod> {
    let labels = json!({"app": "web", "controller-revision-hash": label});
    Arc::new(serde_json::from_value(json!({"metadata": {"name": "web-0", "labels": labels}})).unwrap())
}

fn new_hash() -> String {
    name::hash(&data::of(Dialect::DaemonSet, &Case::of(Dialect::DaemonSet, &[]).template), 0)
}

#[test]
fn a_template_without_a_record_gets_one() {
    let case = Case::of(Dialect::StatefulSet, &["web-a 3 v1", "web-b 9 v3 foreign", "web-g 5 v1 going"]);
    let name = format!("web-{}", new_hash());
    assert_eq!(case.writes(), [format!("create {name}")]);
    let history = case.history();
    let update = history.update();
    // The number of a record that is going is not used again.
    assert_eq!((update.name.as_str(), update.label.as_str(), update.revision), (&*name, &*name, 6));
    assert!(history.is_updated(&pod(&name)) && !history.is_updated(&pod("web-a")));

    let writes = history.writes(&case.owner(), &[("a", "b")].into_iter().collect());
    let Verb::Create { body, controller } = &writes[0].verb else { panic!("{}", writes[0]) };
    assert_eq!(controller.as_ref(), Some(&case.meta.uid));
    let mut template = template("v2");
    template["$patch"] = "replace".into();
    let wanted = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 6,
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web", "controller.kubernetes.io/hash": new_hash()},
            "annotations": {"a": "b"}, "ownerReferences": [case.reference.to_value()]},
        "data": {"spec": {"template": template}},
    });
    assert_eq!(body.to_value(), wanted);
}

#[test]
fn a_record_of_the_template_is_used_whatever_its_name() {
    let case = Case::of(Dialect::StatefulSet, &["web-a 1 v1", "web-b 2 v2"]);
    assert!(case.writes().is_empty());
    let history = case.history();
    assert_eq!((history.update().name.as_str(), history.update().revision), ("web-b", 2));
    assert!(history.is_updated(&pod("web-b")) && !history.is_updated(&pod("web-a")));
    assert!(history.of_pod(&pod("web-a")).is_some() && history.of_pod(&pod("web-x")).is_none());
}

#[test]
fn a_template_that_is_wanted_again_becomes_the_latest() {
    let case = Case::of(Dialect::StatefulSet, &["web-a 1 v2", "web-b 4 v3"]);
    assert_eq!(
        case.writes(),
        [r#"patch ControllerRevision shop/web-a {"revision":5} (its template is wanted again)"#]
    );
    let last = Case::of(Dialect::StatefulSet, &[&format!("web-b {} v3", i64::MAX), "web-a 1 v2"]);
    assert_eq!(last.history().update().revision, i64::MAX);
}

/// Two records of one template, as two versions of a controller leave them: pods of either are up to date.
#[test]
fn pods_of_an_equal_record_need_no_update() {
    for (dialect, first, second) in [(Dialect::StatefulSet, "web-a", "web-b"), (Dialect::DaemonSet, "a", "b")]
    {
        let case = Case::of(dialect, &["web-a 1 v2", "web-b 2 v2", "web-c 1 v1"]);
        let history = case.history();
        assert_eq!(history.update().label, second);
        assert!(history.is_updated(&pod(first)) && history.is_updated(&pod(second)));
        let old = history.named("web-a").unwrap();
        assert!(history.is_of(&pod(second), old) && history.is_update(old));
        assert!(!history.is_of(&pod(second), history.named("web-c").unwrap()));
    }
}

#[test]
fn a_name_that_somebody_has_is_not_fought_over() {
    let taken = format!("web-{}", new_hash());
    for how in ["foreign", "other", "going"] {
        let case = Case::of(Dialect::DaemonSet, &[&format!("{taken} 1 v9 {how}")]);
        let history = case.history();
        let update = history.update();
        assert_eq!(update.collisions, 1);
        assert_eq!(update.label, name::hash(&data::of(case.dialect, &case.template), 1));
        assert_eq!(update.name, format!("web-{}", update.label));
    }
}

/// Each kind's records are labelled as kube-controller-manager labels them, for whoever selects them by that.
#[test]
fn a_daemon_set_s_record_has_the_label_of_its_pods() {
    let case = Case::of(Dialect::DaemonSet, &[]);
    let writes = case.history().writes(&case.owner(), &Labels::default());
    let Verb::Create { body, .. } = &writes[0].verb else { panic!("{}", writes[0]) };
    let labels = json!({"app": "web", "controller-revision-hash": new_hash()});
    assert_eq!(body.to_value()["metadata"]["labels"], labels);
}

#[test]
fn matching_orphans_are_adopted_and_strays_released() {
    let records = ["web-a 1 v1 orphan", "web-b 2 v2", "web-c 3 v3 other", "web-d 9 v1 orphan other"];
    assert_eq!(
        Case::of(Dialect::DaemonSet, &records).writes(),
        [
            "release ControllerRevision shop/web-c (no longer matches the selector)",
            "adopt ControllerRevision shop/web-a (matches the selector)",
        ]
    );
    // A StatefulSet's strays go with it.
    assert_eq!(
        Case::of(Dialect::StatefulSet, &records).writes(),
        ["adopt ControllerRevision shop/web-a (matches the selector)"]
    );
    // An orphan of the wanted template is adopted first: two writes to one object would race.
    let case = Case::of(Dialect::StatefulSet, &["web-a 1 v2 orphan", "web-b 2 v1"]);
    assert_eq!(case.writes(), ["adopt ControllerRevision shop/web-a (matches the selector)"]);
    assert_eq!(case.history().update().name, "web-a");
}

#[test]
fn an_owner_that_goes_writes_nothing() {
    let mut case = Case::of(Dialect::StatefulSet, &["web-a 1 v1 orphan", "web-c 3 v3 other"]);
    case.meta.deleted = Some(Timestamp::UNIX_EPOCH);
    assert!(case.writes().is_empty());
}

#[test]
fn the_history_is_cut_from_its_beginning_and_nothing_that_is_used_goes() {
    let records = ["web-c 3 v5", "web-a 1 v3", "web-b 2 v4", "web-current 4 v6", "web-u 9 v2"];
    let sets = Case::of(Dialect::StatefulSet, &records);
    assert_eq!(sets.truncated(10, &[]), [""; 0]);
    assert_eq!(sets.truncated(2, &[]), ["web-a"]);
    assert_eq!(sets.truncated(1, &["web-a"]), ["web-b"]);
    assert_eq!(sets.truncated(0, &["web-b", "web-u"]), ["web-a", "web-c"]);
    assert_eq!(sets.truncated(-1, &[]), ["web-a", "web-b", "web-c"]);
    // A DaemonSet's limit counts those in use too.
    let daemons = Case::of(Dialect::DaemonSet, &records);
    assert_eq!(daemons.truncated(2, &["a"]), ["web-b", "web-c"]);
    assert_eq!(daemons.truncated(4, &[]), [""; 0]);
}
