//! `spec.strategy`: how many pods there may be, and how many must be available.

use crate::views::{Deployment, Strategy};

/// `maxSurge` and `maxUnavailable` in pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) replicas: i32,
    pub(super) max_surge: i32,
    pub(super) max_unavailable: i32,
}

impl Bounds {
    pub(super) fn of(deployment: &Deployment) -> Self {
        let replicas = deployment.replicas;
        let Strategy::RollingUpdate { max_surge, max_unavailable } = deployment.strategy else {
            return Self { replicas, max_surge: 0, max_unavailable: 0 };
        };
        let max_surge = max_surge.of_rounding_up(replicas).max(0);
        let mut max_unavailable = max_unavailable.of_rounding_down(replicas).max(0);
        if max_surge == 0 && max_unavailable == 0 {
            // Percentages of few pods can both come to nothing; then one pod at a time, since a quota may
            // forbid a surge.
            max_unavailable = 1;
        }
        Self { replicas, max_surge, max_unavailable: max_unavailable.min(replicas) }
    }

    /// How many pods there may be, terminating ones not counted.
    pub(super) fn max_total(self) -> i64 {
        i64::from(self.replicas) + i64::from(self.max_surge)
    }

    /// The same as ReplicaSets remember it: an annotation that upstream reads as 32 bits.
    pub(super) fn max_replicas_annotation(self) -> i32 {
        self.replicas.saturating_add(self.max_surge)
    }

    /// How many pods have to be available.
    pub(super) fn min_available(self) -> i64 {
        i64::from(self.replicas) - i64::from(self.max_unavailable)
    }
}

#[cfg(test)]
mod tests {
    use trysail_core::IntOrPercent;

    use super::*;

    #[test]
    fn bounds_with_a_row_for_zero_and_one() {
        let (int, percent) = (IntOrPercent::Int, IntOrPercent::Percent);
        // (replicas, surge, unavailable) -> (surge, unavailable)
        for (replicas, max_surge, max_unavailable, expected) in [
            (0, percent(25), percent(25), (0, 0)),
            (1, percent(25), percent(25), (1, 0)),
            (10, percent(25), percent(25), (3, 2)),
            (1, percent(0), percent(1), (0, 1)),
            (2, int(0), percent(1), (0, 1)),
            (3, int(0), int(5), (0, 3)),
            (3, int(5), int(0), (5, 0)),
            (i32::MAX, percent(25), int(0), (536_870_912, 0)),
        ] {
            let spec = serde_json::json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "template": {},
                "strategy": {"rollingUpdate": {"maxSurge": max_surge, "maxUnavailable": max_unavailable}}}});
            let bounds = Bounds::of(&serde_json::from_value(spec).unwrap());
            assert_eq!((bounds.max_surge, bounds.max_unavailable), expected, "{max_surge} {max_unavailable}");
        }
    }
}
