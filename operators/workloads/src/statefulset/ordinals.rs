//! `spec.replicas` and `spec.ordinals.start`: which pods there should be.
//!
//! A pod's ordinal is in its name, `SET-ORDINAL`. Only the canonical spelling counts: `web-007` beside `web-7`
//! would be two pods of one ordinal.

use crate::views::StatefulSet;

/// The name of the pod with that ordinal.
pub fn pod_name(set: &str, ordinal: i32) -> String {
    format!("{set}-{ordinal}")
}

/// The ordinal of a pod of that set; `None` for names that no pod of it has.
pub fn ordinal_of(pod: &str, set: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    // Also refuses signs and leading zeros.
    (ordinal >= 0 && ordinal.to_string() == digits).then_some(ordinal)
}

/// The ordinals that there should be: from `start`, as many as replicas. Wide, because the sum may not be an ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    start: i64,
    end: i64,
}

impl Range {
    pub(super) fn of(set: &StatefulSet) -> Self {
        let start = i64::from(set.start.max(0));
        Self { start, end: start + i64::from(set.replicas.max(0)) }
    }

    /// The last ordinal is more than 2³¹ − 1: names of such pods cannot be read back.
    pub(super) fn overflows(self) -> bool {
        self.end > i64::from(i32::MAX) + 1
    }

    pub(super) fn contains(self, ordinal: i32) -> bool {
        (self.start..self.end).contains(&i64::from(ordinal))
    }

    pub(super) fn len(self) -> i64 {
        self.end - self.start
    }

    /// Ascending. A set may be huge: whoever iterates stops early.
    pub(super) fn iter(self) -> impl DoubleEndedIterator<Item = i32> {
        let end = self.end.min(i64::from(i32::MAX) + 1);
        (self.start..end).filter_map(|ordinal| i32::try_from(ordinal).ok())
    }

    /// How far an ordinal is from the first: what `partition` is compared with.
    pub(super) fn index(self, ordinal: i32) -> i64 {
        i64::from(ordinal) - self.start
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(replicas: i32, start: i32) -> Range {
        let set = json!({"metadata": {"name": "db"}, "spec": {"replicas": replicas, "ordinals": {"start": start},
            "template": {"metadata": {}, "spec": {}}}});
        Range::of(&serde_json::from_str(&set.to_string()).unwrap())
    }

    #[test]
    fn ordinals_are_read_from_names_and_nothing_else_is() {
        for (name, ordinal) in [
            ("db-0", Some(0)),
            ("db-10", Some(10)),
            ("db-2147483647", Some(i32::MAX)),
            ("db-2147483648", None),
            ("db-007", None),
            ("db-00", None),
            ("db-+1", None),
            ("db--1", None),
            ("db-", None),
            ("db", None),
            ("db-1-2", None),
            ("adb-1", None),
            ("db-1x", None),
        ] {
            assert_eq!(ordinal_of(name, "db"), ordinal, "{name}");
        }
        assert_eq!(ordinal_of("db-1-2", "db-1"), Some(2));
        assert_eq!(pod_name("db", i32::MAX), "db-2147483647");
    }

    #[test]
    fn ranges() {
        // (replicas, start, ordinals, overflow); nothing and one are sizes too.
        for (replicas, start, ordinals, overflow) in [
            (0, 0, vec![], false),
            (1, 0, vec![0], false),
            (0, 5, vec![], false),
            (2, 5, vec![5, 6], false),
            (1, i32::MAX, vec![i32::MAX], false),
            (2, i32::MAX, vec![i32::MAX], true),
        ] {
            let range = range(replicas, start);
            assert_eq!((range.iter().collect::<Vec<_>>(), range.overflows()), (ordinals, overflow));
            assert_eq!(range.len(), i64::from(replicas));
        }
        assert!(range(i32::MAX, i32::MAX).overflows());
        assert!(!range(i32::MAX, 0).overflows());
    }
}
