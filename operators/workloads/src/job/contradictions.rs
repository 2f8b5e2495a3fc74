//! Specs that no plan can serve. The API server refuses them; a Job that got past it (made while its checks were off,
//! say) is told what is wrong and otherwise left alone.

use crate::views::{CompletionMode, Job, PodFailureAction};

/// The reason of the event and the condition.
pub(super) const REASON: &str = "InvalidSpec";

/// What is wrong, and what to do about it.
pub(super) fn find(job: &Job) -> Option<&'static str> {
    let has_index_rule = || {
        let rules = job.pod_failure_policy.iter().flatten();
        rules.into_iter().any(|rule| rule.action == PodFailureAction::FailIndex)
    };
    let found = [
        (
            job.is_indexed() && job.completions.is_none(),
            "spec.completions is required when completionMode is Indexed: say how many indexes there are",
        ),
        (
            job.backoff_limit_per_index.is_some() && !job.is_indexed(),
            "spec.backoffLimitPerIndex needs completionMode Indexed: remove it, or use backoffLimit",
        ),
        (
            job.max_failed_indexes.is_some() && job.backoff_limit_per_index.is_none(),
            "spec.maxFailedIndexes needs backoffLimitPerIndex: set it, or remove maxFailedIndexes",
        ),
        (
            has_index_rule() && job.backoff_limit_per_index.is_none(),
            "the action FailIndex of spec.podFailurePolicy needs backoffLimitPerIndex: set it, or use FailJob",
        ),
        (
            job.success_policy.is_some() && !job.is_indexed(),
            "spec.successPolicy needs completionMode Indexed: remove it, or name the mode",
        ),
        (
            job.pod_failure_policy.is_some() && job.restart_policy == "OnFailure",
            "spec.podFailurePolicy needs restartPolicy Never: with OnFailure no pod fails",
        ),
        (
            job.restart_policy == "Always",
            "spec.template.spec.restartPolicy Always would never let a pod end: use Never or OnFailure",
        ),
        (
            !job.selector.matches(&job.template.labels) && job.manual_selector,
            "spec.template.metadata.labels must match spec.selector",
        ),
    ];
    found.into_iter().find_map(|(is_wrong, what)| is_wrong.then_some(what))
}

/// True when this program is too old for the Job.
pub(super) fn is_unknown_mode(job: &Job) -> bool {
    matches!(job.completion_mode, CompletionMode::Unknown(_))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn contradictory_policies_are_told_with_what_to_do() {
        let policy = |action: &str| json!({"rules": [{"action": action}]});
        for (spec, field) in [
            (json!({"completionMode": "Indexed", "parallelism": 2}), "spec.completions"),
            (json!({"backoffLimitPerIndex": 1}), "spec.backoffLimitPerIndex"),
            (
                json!({"completionMode": "Indexed", "completions": 1, "maxFailedIndexes": 1}),
                "spec.maxFailedIndexes",
            ),
            (json!({"podFailurePolicy": policy("FailIndex")}), "FailIndex"),
            (json!({"successPolicy": policy("x")}), "spec.successPolicy"),
            (
                json!({"podFailurePolicy": policy("Count"), "template": {"spec": {"restartPolicy": "OnFailure"}}}),
                "restartPolicy Never",
            ),
            (json!({"template": {"spec": {"restartPolicy": "Always"}}}), "Always"),
        ] {
            let mut whole = json!({"template": {"spec": {"restartPolicy": "Never"}}});
            whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let job = json!({"metadata": {"name": "pi", "uid": "u"}, "spec": whole});
            let job: Job = serde_json::from_value(job).unwrap();
            assert!(find(&job).unwrap().contains(field), "{spec}: {:?}", find(&job));
        }
    }
}
