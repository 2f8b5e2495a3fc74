//! How a status is written: only what changed, and not more often than it helps.
//!
//! A no-op status is no write. Conditions are replaced as a whole list, because a merge patch knows lists only
//! whole; the resourceVersion in the patch makes sure that nobody else's condition is lost.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value, json};
use trysail_core::{Face, Selector, Template, condition::Conditions};

/// While pods come and go, owners' statuses are written at most this often: long enough to fold the readiness
/// of a burst into a few writes, short enough for nobody to notice.
const COALESCE: SignedDuration = SignedDuration::from_millis(100);

/// A status may lag this long behind while pods are still being created or deleted: the next look, which
/// follows at once when they appear, would write it again.
const DEFER_AT_MOST: SignedDuration = SignedDuration::from_secs(1);

/// When the status was last written and since when a change is held back. Lost on restart, harmlessly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusPace {
    written_at: Option<Timestamp>,
    deferred_since: Option<Timestamp>,
}

impl StatusPace {
    /// What to do with a changed status: `None` to write it now, or when to look again. `busy` says that the
    /// same plan writes children, whose appearance brings the next look anyway.
    pub(crate) fn hold_until(self, now: Timestamp, busy: bool) -> Option<Timestamp> {
        let due = |since: Option<Timestamp>, after: SignedDuration| {
            // A clock that stepped back must not hold a status for ever.
            let at = since.filter(|since| *since <= now)?.checked_add(after).ok()?;
            (now < at).then_some(at)
        };
        let deferred = if busy { due(Some(self.deferral(now)), DEFER_AT_MOST) } else { None };
        deferred.or_else(|| due(self.written_at, COALESCE))
    }

    /// The pace after a look that wrote nothing because of [`Self::hold_until`].
    pub(crate) fn held(self, now: Timestamp) -> Self {
        Self { deferred_since: Some(self.deferral(now)), ..self }
    }

    /// The pace after a look that wrote the status.
    pub(crate) fn written(now: Timestamp) -> Self {
        Self { written_at: Some(now), deferred_since: None }
    }

    /// The pace after a look that found the status right.
    pub(crate) fn unchanged(self) -> Self {
        Self { deferred_since: None, ..self }
    }

    fn deferral(self, now: Timestamp) -> Timestamp {
        self.deferred_since.filter(|since| *since <= now).unwrap_or(now)
    }
}

/// The fields of a status that differ from what was read.
#[derive(Debug)]
pub(crate) struct StatusPatch {
    face: Face,
    fields: Map<String, Value>,
}

impl StatusPatch {
    pub(crate) fn new(face: Face) -> Self {
        Self { face, fields: Map::new() }
    }

    /// A counter. Native servers do not store zeros; a CRD must, or printers show a blank.
    pub(crate) fn counter(&mut self, name: &str, old: Option<i32>, new: i32) {
        let same = match self.face {
            Face::Native => old.unwrap_or(0) == new,
            Face::Crd => old == Some(new),
        };
        if !same {
            self.fields.insert(name.to_owned(), new.into());
        }
    }

    /// A field that may be absent; absent is written as null.
    pub(crate) fn optional<T: Copy + PartialEq + Into<Value>>(
        &mut self,
        name: &str,
        old: Option<T>,
        new: Option<T>,
    ) {
        if old != new {
            self.fields.insert(name.to_owned(), new.map_or(Value::Null, Into::into));
        }
    }

    /// A field that may be absent, of any type; absent is written as null.
    pub(crate) fn field<T: PartialEq + Serialize>(&mut self, name: &str, old: Option<&T>, new: Option<&T>) {
        if old != new {
            self.fields.insert(name.to_owned(), new.map_or(Value::Null, |new| json!(new)));
        }
    }

    /// A display string: CRD face only.
    pub(crate) fn display(&mut self, name: &str, old: Option<&str>, new: &str) {
        if self.face == Face::Crd && old != Some(new) {
            self.fields.insert(name.to_owned(), new.into());
        }
    }

    pub(crate) fn conditions(&mut self, old: &Conditions, new: &Conditions) {
        if old != new {
            self.fields.insert("conditions".to_owned(), json!(new));
        }
    }

    /// `{"status": …}`, or `None` when nothing differs.
    pub(crate) fn body(self) -> Option<Value> {
        (!self.fields.is_empty()).then(|| json!({ "status": self.fields }))
    }
}

/// The strings that native printers compute and a CRD's printer columns read from the status.
pub(crate) struct Display<'a> {
    pub(crate) selector: &'a Selector,
    pub(crate) template: &'a Template,
    pub(crate) ready: i32,
    pub(crate) replicas: i32,
    /// The spec changed since the status was written. Otherwise what follows from it is left alone: reading the
    /// containers out of the raw template is not free.
    pub(crate) spec_is_new: bool,
}

impl Display<'_> {
    /// Writes what differs from `old`: selector, ready, containers, images.
    pub(crate) fn write(&self, patch: &mut StatusPatch, old: [&Option<String>; 4]) {
        if patch.face == Face::Native {
            return;
        }
        let [selector, ready, containers, images] = old.map(Option::as_deref);
        patch.display("ready", ready, &format!("{}/{}", self.ready, self.replicas));
        if self.spec_is_new || selector.is_none() || containers.is_none() || images.is_none() {
            let (names, pulled): (Vec<_>, Vec<_>) = self.template.containers().into_iter().unzip();
            patch.display("selector", selector, &self.selector.to_string());
            patch.display("containers", containers, &names.join(","));
            patch.display("images", images, &pulled.join(","));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn statuses_are_coalesced_to_one_per_tenth_of_a_second() {
        let pace = StatusPace::written(at(1000));
        assert_eq!(pace.hold_until(at(1099), false), Some(at(1100)));
        assert_eq!(pace.hold_until(at(1100), false), None);
        assert_eq!(pace.hold_until(at(900), false), None, "a clock that stepped back holds nothing");
    }

    #[test]
    fn a_busy_owner_defers_its_status_for_at_most_a_second() {
        let pace = StatusPace::default();
        assert_eq!(pace.hold_until(at(0), true), Some(at(1000)));
        let held = pace.held(at(0));
        assert_eq!(held.held(at(500)), held, "the deferral counts from the first");
        assert_eq!(held.hold_until(at(999), true), Some(at(1000)));
        assert_eq!(held.hold_until(at(1000), true), None);
        assert_eq!(held.hold_until(at(10), false), None, "nothing to wait for once the pods are there");
    }

    #[test]
    fn only_differences_are_written() {
        let mut patch = StatusPatch::new(Face::Native);
        patch.counter("replicas", None, 0);
        patch.optional("terminatingReplicas", Some(1), Some(1));
        assert_eq!(patch.body(), None);
        let mut patch = StatusPatch::new(Face::Crd);
        patch.counter("replicas", None, 0);
        patch.optional("terminatingReplicas", Some(1), None);
        assert_eq!(patch.body(), Some(json!({"status": {"replicas": 0, "terminatingReplicas": null}})));
    }
}
