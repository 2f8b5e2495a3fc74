//! What a Lease says, judged on this process's own monotonic clock. Pure: the time is an argument.

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use std::time::Duration;
use tokio::time::Instant;
use trysail_core::{Timestamp, Uid};

use super::ElectionConfig;

/// A Lease, and when this process first saw it like that.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    lease: Lease,
    since: Instant,
}

/// Whose the lease is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ours,
    Free,
    HeldBy(String),
}

impl Observed {
    /// The time counts on while the record stays the same; whatever else changes in the object does not matter.
    pub(super) fn after(before: Option<Self>, lease: Lease, now: Instant) -> Self {
        let since = match before {
            Some(before) if before.lease.spec == lease.spec => before.since,
            Some(_) | None => now,
        };
        Self { lease, since }
    }

    pub(super) fn holder(&self) -> Option<&str> {
        let holder = self.lease.spec.as_ref()?.holder_identity.as_deref()?;
        (!holder.is_empty()).then_some(holder)
    }

    pub(super) fn uid(&self) -> Uid {
        Uid::from(self.lease.metadata.uid.as_deref().unwrap_or_default())
    }

    pub(super) fn is_held_by(&self, identity: &str) -> bool {
        self.holder() == Some(identity)
    }

    pub(super) fn judge(&self, identity: &str, now: Instant) -> Verdict {
        let Some(holder) = self.holder() else { return Verdict::Free };
        if holder == identity {
            return Verdict::Ours;
        }
        let seconds = self.spec().lease_duration_seconds.unwrap_or(0);
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        if now < self.since + duration { Verdict::HeldBy(holder.to_owned()) } else { Verdict::Free }
    }

    /// The lease with a new renewal.
    pub(super) fn renewed(&self, config: &ElectionConfig, now: Timestamp) -> Lease {
        let old = self.spec();
        let mut spec = held(&old, config, now, old.lease_transitions.unwrap_or(0));
        spec.acquire_time = old.acquire_time.or(spec.acquire_time);
        Lease { metadata: self.lease.metadata.clone(), spec: Some(spec) }
    }

    /// The lease with a new holder.
    pub(super) fn taken(&self, config: &ElectionConfig, now: Timestamp) -> Lease {
        let old = self.spec();
        let transitions = old.lease_transitions.unwrap_or(0).saturating_add(1);
        let spec = held(&old, config, now, transitions);
        Lease { metadata: self.lease.metadata.clone(), spec: Some(spec) }
    }

    /// The lease without a holder.
    pub(super) fn released(&self, now: Timestamp) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            ..self.spec()
        };
        Lease { metadata: self.lease.metadata.clone(), spec: Some(spec) }
    }

    fn spec(&self) -> LeaseSpec {
        self.lease.spec.clone().unwrap_or_default()
    }
}

/// A record that differs from `old` in its renewal, even if the clock stands still: a record that does not
/// change looks like one that is not renewed.
pub(super) fn held(old: &LeaseSpec, config: &ElectionConfig, now: Timestamp, transitions: i32) -> LeaseSpec {
    let micros = now.as_microsecond();
    let same = old.renew_time.as_ref().is_some_and(|renewed| renewed.0.as_microsecond() == micros);
    let renewed = Timestamp::from_microsecond(micros + i64::from(same)).unwrap_or(now);
    LeaseSpec {
        holder_identity: Some(config.identity.clone()),
        lease_duration_seconds: Some(i32::try_from(config.lease_duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: Some(MicroTime(renewed)),
        renew_time: Some(MicroTime(renewed)),
        lease_transitions: Some(transitions),
        ..old.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn config(identity: &str) -> ElectionConfig {
        ElectionConfig { identity: identity.to_owned(), ..ElectionConfig::new("ns", "lease") }
    }

    fn held_by(identity: &str, renewed: Timestamp) -> Lease {
        Lease { spec: Some(held(&LeaseSpec::default(), &config(identity), renewed, 0)), ..Lease::default() }
    }

    /// The times in the record are those of somebody else's clock: years off, they elect nobody.
    #[test]
    fn others_clocks_are_never_read() {
        let start = Instant::now();
        for renewed in [at(0), at(4_000_000_000)] {
            let observed = Observed::after(None, held_by("other", renewed), start);
            let later = start + Duration::from_secs(14);
            assert_eq!(observed.judge("me", later), Verdict::HeldBy("other".to_owned()));
            assert_eq!(observed.judge("me", start + Duration::from_secs(15)), Verdict::Free);
            // The holder's clock stepped back by a minute: still a renewal.
            let renewal = held_by("other", at(renewed.as_second() - 60));
            let observed = Observed::after(Some(observed), renewal, later);
            let verdict = observed.judge("me", start + Duration::from_secs(28));
            assert_eq!(verdict, Verdict::HeldBy("other".to_owned()));
        }
    }

    #[test]
    fn seeing_the_same_record_again_does_not_prolong_it() {
        let start = Instant::now();
        let mut observed = Observed::after(None, held_by("other", at(5)), start);
        for second in 1..15 {
            let mut lease = held_by("other", at(5));
            lease.metadata.resource_version = Some(second.to_string());
            observed = Observed::after(Some(observed), lease, start + Duration::from_secs(second));
        }
        assert_eq!(observed.judge("me", start + Duration::from_secs(15)), Verdict::Free);
    }

    #[test]
    fn a_renewal_changes_the_record_though_the_clock_stands_still() {
        let observed = Observed::after(None, held_by("me", at(5)), Instant::now());
        let renewed = observed.renewed(&config("me"), at(5));
        assert_ne!(renewed.spec, held_by("me", at(5)).spec);
        assert_eq!(renewed.spec.unwrap().acquire_time.unwrap().0, at(5));
    }

    #[test]
    fn taking_and_releasing() {
        let observed = Observed::after(None, held_by("other", at(5)), Instant::now());
        let taken = observed.taken(&config("me"), at(90)).spec.unwrap();
        assert_eq!(taken.holder_identity.as_deref(), Some("me"));
        assert_eq!((taken.lease_transitions, taken.lease_duration_seconds), (Some(1), Some(15)));
        assert_eq!(taken.acquire_time.unwrap().0, at(90));
        let released = Observed::after(None, observed.released(at(91)), Instant::now());
        assert_eq!(released.judge("me", Instant::now()), Verdict::Free);
        assert_eq!(released.holder(), None);
    }
}
