//! Why a key is worked on: kept with the key, bounded, and told in the reconcile's span.

use std::fmt;

use trysail_core::{Key, Symbol};

/// How many causes a key keeps; more are counted.
const MAX_CAUSES: usize = 8;

/// One reason to look at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An object was seen to change.
    Object {
        /// Its kind.
        kind: Symbol,
        /// Its key.
        key: Key,
        /// The version seen.
        version: u64,
        /// What became of it.
        change: Change,
    },
    /// The last reconcile asked to look again by now.
    Timer,
    /// The last attempt failed.
    Retry {
        /// How many failed in a row.
        failures: u32,
    },
    /// Somebody asked, in one word.
    Request(&'static str),
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was there when the watch began.
    Listed,
    /// It appeared or was changed.
    Applied,
    /// It is gone.
    Deleted,
}

/// The causes of one turn, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causes {
    list: Vec<Cause>,
    more: u32,
}

impl Causes {
    /// Those kept.
    pub fn iter(&self) -> impl Iterator<Item = &Cause> {
        self.list.iter()
    }

    /// How many were not kept.
    pub fn more(&self) -> u32 {
        self.more
    }

    /// True when nothing is known.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn extend(&mut self, later: Self) {
        self.more = self.more.saturating_add(later.more);
        for cause in later.list {
            self.push(cause);
        }
    }

    /// The newest version of an object replaces older ones; the same cause twice says nothing new.
    pub(super) fn push(&mut self, cause: Cause) {
        let about = |held: &Cause| match (held, &cause) {
            (Cause::Object { kind, key, .. }, Cause::Object { kind: new_kind, key: new_key, .. }) => {
                kind == new_kind && key == new_key
            }
            (held, new) => held == new,
        };
        if let Some(held) = self.list.iter_mut().find(|held| about(held)) {
            *held = cause;
        } else if self.list.len() < MAX_CAUSES {
            self.list.push(cause);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Object { kind, key, version, change } => {
                let change = match change {
                    Change::Listed => "listed",
                    Change::Applied => "applied",
                    Change::Deleted => "deleted",
                };
                write!(f, "{kind} {key}@{version} {change}")
            }
            Cause::Timer => f.write_str("timer"),
            Cause::Retry { failures } => write!(f, "retry {failures}"),
            Cause::Request(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, cause) in self.list.iter().enumerate() {
            write!(f, "{}{cause}", if at == 0 { "" } else { ", " })?;
        }
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_bounded_and_the_newest_version_stands_for_the_older() {
        let object = |name: &str, version| Cause::Object {
            kind: "Pod".into(),
            key: Key::new("shop", name),
            version,
            change: Change::Applied,
        };
        let mut causes = Causes::default();
        causes.push(object("a", 1));
        causes.push(Cause::Timer);
        causes.push(object("a", 2));
        assert_eq!(causes.to_string(), "Pod shop/a@2 applied, timer");
        for n in 0..100 {
            causes.push(object(&n.to_string(), 3));
        }
        assert_eq!((causes.iter().count(), causes.more()), (8, 94));
    }
}
