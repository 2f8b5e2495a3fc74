//! `spec.podFailurePolicy`: what a failed pod means. The first rule that matches decides.

use trysail_core::pod::{ContainerState, Pod, PodDetails};

use crate::views::{Job, OnExitCodes, OnPodCondition, PodFailureAction};

/// What the policy says about one failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It counts, as without a policy.
    Count,
    /// It does not count.
    Ignore,
    /// Its index fails.
    FailIndex,
    /// The Job fails, for that reason.
    FailJob(String),
}

/// Judges a failed pod.
pub(super) fn judge(job: &Job, pod: &Pod) -> Judgement {
    let rules = job.pod_failure_policy.iter().flatten();
    let Some(details) = pod.details.as_deref() else { return Judgement::Count };
    for (at, rule) in rules.enumerate() {
        let matched = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => exit_code(details, codes).map(|(container, code)| {
                format!(
                    "Container {container} for pod {} failed with exit code {code} matching FailJob rule at index {at}",
                    pod.meta.key
                )
            }),
            (None, Some(patterns)) => condition(details, patterns).map(|kind| {
                format!("Pod {} has condition {kind} matching FailJob rule at index {at}", pod.meta.key)
            }),
            (None, None) => None,
        };
        let Some(message) = matched else { continue };
        match rule.action {
            PodFailureAction::FailJob => return Judgement::FailJob(message),
            PodFailureAction::FailIndex => return Judgement::FailIndex,
            PodFailureAction::Ignore => return Judgement::Ignore,
            PodFailureAction::Count => return Judgement::Count,
            PodFailureAction::Unknown => {}
        }
    }
    Judgement::Count
}

/// The first container whose exit code matches: ordinary ones before init containers. Success never matches.
fn exit_code<'a>(details: &'a PodDetails, codes: &OnExitCodes) -> Option<(&'a str, i32)> {
    let ordinary = details.containers.iter().filter(|container| !container.init);
    let matching = |container: &&ContainerState| {
        let is_named = codes.container_name.as_ref().is_none_or(|name| *name == container.name);
        let code = container.terminated.as_ref().map_or(0, |end| end.exit_code);
        let is_listed = codes.values.contains(&code);
        let is_asked_for = match codes.operator.as_str() {
            "In" => is_listed,
            "NotIn" => !is_listed,
            _ => false,
        };
        is_named && code != 0 && is_asked_for
    };
    let found =
        ordinary.chain(details.containers.iter().filter(|container| container.init)).find(matching)?;
    Some((&found.name, found.terminated.as_ref()?.exit_code))
}

fn condition<'a>(details: &'a PodDetails, patterns: &[OnPodCondition]) -> Option<&'a str> {
    let found = details.conditions.iter().find(|held| {
        patterns.iter().any(|pattern| pattern.kind == held.kind && pattern.status == held.status)
    })?;
    Some(&found.kind)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use trysail_core::Face;

    use super::{super::fixture::pod, *};

    fn verdict(rules: &Value, text: &str) -> Judgement {
        let job = json!({"metadata": {"name": "pi"}, "spec": {"template": {}, "podFailurePolicy": {"rules": rules}}});
        let pod = serde_json::from_value(pod(Face::Native, text)).unwrap();
        judge(&serde_json::from_value(job).unwrap(), &pod)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = json!([
            {"action": "Ponder", "onExitCodes": {"operator": "In", "values": [1]}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [7], "containerName": "other"}},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [7, 8]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 2], "containerName": "main"}},
        ]);
        let message =
            "Container main for pod shop/a failed with exit code 7 matching FailJob rule at index 3";
        for (pod, judgement) in [
            ("a failed code=7", Judgement::FailJob(message.to_owned())),
            ("a failed code=7 has=DisruptionTarget", Judgement::Ignore),
            ("a failed code=1", Judgement::Count),
            ("a failed code=3", Judgement::FailIndex),
            ("a failed code=0", Judgement::Count),
            ("a failed", Judgement::Count),
        ] {
            assert_eq!(verdict(&rules, pod), judgement, "{pod}");
        }
    }

    #[test]
    fn a_condition_that_fails_the_job_is_named() {
        let rules = json!([{"action": "FailJob", "onPodConditions": [{"type": "ConfigIssue"}]}]);
        let message = "Pod shop/a has condition ConfigIssue matching FailJob rule at index 0";
        assert_eq!(verdict(&rules, "a failed has=ConfigIssue"), Judgement::FailJob(message.to_owned()));
        assert_eq!(verdict(&rules, "a failed has=Other"), Judgement::Count);
    }
}
