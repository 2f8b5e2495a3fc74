//! `spec.successPolicy`: which indexes are enough.

use super::indexes::Indexes;
use crate::views::Job;

/// The message of the condition when a rule is met.
pub(super) fn met(job: &Job, completed: &Indexes) -> Option<String> {
    let completions = job.completions?;
    if completed.is_empty() {
        return None;
    }
    let rules = job.success_policy.iter().flatten();
    let is_met = |rule: &crate::views::SuccessRule| match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            let common = completed.common(&wanted);
            // A rule about no index at all is one that could not be read.
            let enough = rule.succeeded_count.unwrap_or(i32::MAX).min(wanted.total());
            !wanted.is_empty() && common >= enough
        }
        None => rule.succeeded_count.is_some_and(|count| completed.total() >= count),
    };
    let at = rules.into_iter().position(is_met)?;
    Some(format!("Matched rules at index {at}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_met(rules: &serde_json::Value, completed: &str) -> Option<String> {
        let job: Job = serde_json::from_value(json!({"metadata": {"name": "pi"}, "spec": {
            "completions": 5, "completionMode": "Indexed", "successPolicy": {"rules": rules}, "template": {}}}))
        .unwrap();
        met(&job, &Indexes::parse(completed, 5))
    }

    #[test]
    fn the_first_rule_that_is_met_is_named() {
        let rules = json!([{"succeededIndexes": "0-2"}, {"succeededIndexes": "2-4", "succeededCount": 2},
            {"succeededCount": 4}]);
        for (completed, rule) in [
            ("", None),
            ("0,1", None),
            ("0-2", Some(0)),
            ("2,4", Some(1)),
            ("1,3", None),
            ("0,1,3", None),
            ("0,1,3,4", Some(1)),
            ("0-4", Some(0)),
        ] {
            let message = rule.map(|rule: i32| format!("Matched rules at index {rule}"));
            assert_eq!(is_met(&rules, completed), message, "{completed}");
        }
        assert_eq!(is_met(&json!([{"succeededIndexes": "x"}]), "0-4"), None, "a rule that cannot be read");
        assert!(is_met(&json!([{"succeededCount": 1}]), "3").is_some());
    }
}
