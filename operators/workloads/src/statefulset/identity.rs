//! Who a pod is: its name, the labels that repeat it, its host name under `spec.serviceName`, and its volumes.
//!
//! Host name and subdomain are written when the pod is made and never again; the labels are repaired.

use serde_json::{Map, Value, json};
use trysail_core::{
    Action, Labels, Template,
    plan::OwnerReference,
    pod::{CONTROLLER_REVISION_HASH, Pod},
};

use super::{ordinals::pod_name, pods, scene::Scene, volume_claim_templates::claim_name};
use crate::{TopologySpread, pod_body::PodBody, views::StatefulSet};

/// The pod's own name: what a Service of one pod selects.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// Its ordinal.
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The labels that make a pod the one of its ordinal.
fn own_labels(name: &str, ordinal: i32) -> [(&'static str, String); 2] {
    [(POD_NAME, name.to_owned()), (POD_INDEX, ordinal.to_string())]
}

/// The pod to send.
pub(super) fn body<'a>(
    set: &StatefulSet,
    owner: &'a OwnerReference,
    ordinal: i32,
    (revision, template): (&str, &Template),
    spread: Option<TopologySpread>,
) -> PodBody<'a> {
    let name = pod_name(&set.meta.key.name, ordinal);
    let pod = PodBody::new(owner, template, name.clone()).label(CONTROLLER_REVISION_HASH, revision);
    let pod = own_labels(&name, ordinal).iter().fold(pod, |pod, (key, value)| pod.label(key, value));
    pod.edit_spec(|spec| {
        spec.insert("hostname".into(), name.into());
        if set.service_name.is_empty() {
            spec.remove("subdomain");
        } else {
            spec.insert("subdomain".into(), set.service_name.as_str().into());
        }
        mount(set, ordinal, spec);
        if let Some(spread) = spread {
            spread.set(spec, &set.selector);
        }
    })
}

/// The claims as volumes. A volume of the template gives way to the claim of the same name.
fn mount(set: &StatefulSet, ordinal: i32, spec: &mut Map<String, Value>) {
    if set.claim_templates.is_empty() {
        return;
    }
    let claims = set.claim_templates.iter().map(|template| {
        let claim = claim_name(&template.name, &set.meta.key.name, ordinal);
        json!({"name": template.name, "persistentVolumeClaim": {"claimName": claim}})
    });
    let old = spec.remove("volumes");
    let old = old.as_ref().and_then(Value::as_array).into_iter().flatten();
    let is_kept = |volume: &&Value| {
        !set.claim_templates.iter().any(|template| volume["name"] == template.name.as_str())
    };
    spec.insert("volumes".into(), claims.chain(old.filter(is_kept).cloned()).collect());
}

/// The write that gives a pod the labels of its ordinal again.
pub(super) fn repair(scene: &Scene<'_>, ordinal: i32, pod: &Pod) -> Option<Action> {
    let name = &pod.meta.key.name;
    let wrong: Map<String, Value> = own_labels(name, ordinal)
        .into_iter()
        .filter(|(key, value)| pod.meta.labels.get(key) != Some(value.as_str()))
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    if wrong.is_empty() {
        return None;
    }
    let body = json!({"metadata": {"labels": wrong}});
    Some(pods::patch(scene, pod, body, "labels of its identity are missing"))
}

/// True when every claim of the pod is one of its volumes, or nobody can know.
pub(super) fn has_its_volumes(set: &StatefulSet, ordinal: i32, pod: &Pod) -> bool {
    let Some(details) = &pod.details else { return true };
    set.claim_templates.iter().all(|template| {
        let claim = claim_name(&template.name, &set.meta.key.name, ordinal);
        details.claims.iter().any(|(volume, held)| *volume == template.name && *held == claim.as_str())
    })
}

/// Labels of a claim: its template's, and those of the selector.
pub(super) fn claim_labels(set: &StatefulSet, of_template: &Labels) -> Labels {
    set.selector.match_labels.iter().fold(of_template.clone(), |labels, (key, value)| labels.with(key, value))
}
