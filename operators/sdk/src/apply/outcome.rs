//! What became of a plan.

use std::time::Duration;

use trysail_core::{Action, Key};

/// What became of every action of a plan, in the plan's order.
#[derive(Debug, Default)]
#[must_use = "an outcome that nobody reads is a failure that nobody handles"]
pub struct Outcome {
    /// One per action.
    pub reports: Vec<Report>,
}

/// What became of one action.
#[derive(Debug)]
pub struct Report {
    /// The action.
    pub action: Action,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server has done it, or had done it before.
    Done,
    /// What was judged has changed since. The gate holds the key until the stores show that.
    Conflict {
        /// In words.
        message: String,
    },
    /// An object with another controller has the name.
    NameTaken {
        /// That name.
        name: Key,
    },
    /// Nothing can be created in a namespace that is being deleted; there is no point in trying again.
    NamespaceTerminating,
    /// Quota, admission, validation, permission: nothing was changed.
    Refused {
        /// The server's words.
        message: String,
    },
    /// The server is busy: nothing was changed.
    Throttled {
        /// When it wants to be asked again.
        after: Option<Duration>,
    },
    /// It may or may not have been done. The gate holds the key until that is known.
    Unknown {
        /// In words.
        message: String,
    },
    /// It was not sent, or our credentials were not accepted: nothing was changed.
    Failed {
        /// In words.
        message: String,
    },
    /// This process does not lead (any more): nothing was changed.
    Fenced,
    /// An action before it did not succeed.
    Skipped,
}

/// What to do about a key after its plan was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Everything was done: events will tell when there is more to do.
    Wait,
    /// The plan was made from what is no longer so: look again as soon as the gate opens.
    LookAgain,
    /// Try again later: with back-off, and not before what the server asked for.
    BackOff {
        /// The server's wish.
        at_least: Option<Duration>,
    },
    /// This process does not lead: nothing to do.
    Stop,
}

impl Verdict {
    /// True when the next action may run.
    pub fn is_done(&self) -> bool {
        matches!(self, Verdict::Done)
    }
}

impl Outcome {
    /// True when every action was done.
    pub fn is_success(&self) -> bool {
        self.reports.iter().all(|report| report.verdict.is_done())
    }

    /// The first action that the server refused for reasons of its own, and its words: for `Context::refusal`.
    pub fn refusal(&self) -> Option<(&Action, &str)> {
        self.reports.iter().find_map(|report| match &report.verdict {
            Verdict::Refused { message } => Some((&report.action, message.as_str())),
            _ => None,
        })
    }

    /// What to do about the key. The gravest verdict decides.
    pub fn next(&self) -> Next {
        let mut next = Next::Wait;
        for report in &self.reports {
            let asked = match &report.verdict {
                Verdict::Done | Verdict::Skipped | Verdict::NamespaceTerminating => Next::Wait,
                Verdict::Conflict { .. } => Next::LookAgain,
                Verdict::NameTaken { .. }
                | Verdict::Refused { .. }
                | Verdict::Unknown { .. }
                | Verdict::Failed { .. } => Next::BackOff { at_least: None },
                Verdict::Throttled { after } => Next::BackOff { at_least: *after },
                Verdict::Fenced => Next::Stop,
            };
            next = next.graver(asked);
        }
        next
    }
}

impl Next {
    fn graver(self, other: Next) -> Next {
        match (self, other) {
            (Next::Stop, _) | (_, Next::Stop) => Next::Stop,
            (Next::BackOff { at_least: a }, Next::BackOff { at_least: b }) => {
                Next::BackOff { at_least: a.max(b) }
            }
            (back_off @ Next::BackOff { .. }, _) | (_, back_off @ Next::BackOff { .. }) => back_off,
            (Next::LookAgain, _) | (_, Next::LookAgain) => Next::LookAgain,
            (Next::Wait, Next::Wait) => Next::Wait,
        }
    }
}
