//! Carries out plans: waves in order, slow start inside a wave, every write recorded in the gate.
//!
//! Nothing is chosen here. An action that meets another world than the one it was planned for is not bent to
//! fit; it is reported, and the key is looked at again.

mod action;
mod outcome;

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::{OnceCell, Semaphore};
use trysail_core::{Action, Key};

use crate::{client::Client, gate::Gate};
use action::Session;

pub use outcome::{Next, Outcome, Report, Verdict};

/// Writes in flight per process. With more, the API server's fairness puts us at the end of its queues, and a
/// restart leaves more writes of unknown outcome behind.
pub const WRITES_IN_FLIGHT: usize = 32;
/// Writes of one plan in flight. Half of all: a plan of five hundred pods leaves room for the one status write of
/// another key, and stands at most that deep in the line before it.
pub const WRITES_OF_A_PLAN: usize = WRITES_IN_FLIGHT / 2;

/// What every controller of the process writes through; cheap to clone.
#[derive(Clone, Debug)]
pub struct Applier {
    client: Client,
    slots: Arc<Semaphore>,
    closed: bool,
}

impl Applier {
    /// One per process: its clones share the limit of writes in flight.
    pub fn new(client: Client) -> Self {
        Self { client, slots: Arc::new(Semaphore::new(WRITES_IN_FLIGHT)), closed: false }
    }

    /// The same, for an owner whose namespace is being deleted: creates are not sent any more. A namespace never
    /// comes back from there; one of the same name holds other owners.
    #[must_use]
    pub fn in_closed_namespace(&self) -> Self {
        Self { closed: true, ..self.clone() }
    }

    /// The client that is written through.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// Applies the plan for `key`. A wave starts when the one before was done. Inside a wave 1, 2, 4, … actions
/// run side by side, each batch when the one before was done: a template that the server refuses costs one
/// refusal, not five hundred.
pub async fn apply(applier: &Applier, gate: &Gate, key: &Key, waves: Vec<Vec<Action>>) -> Outcome {
    let session =
        Session { applier, gate, key, owner: OnceCell::new(), share: Semaphore::new(WRITES_OF_A_PLAN) };
    let mut outcome = Outcome::default();
    let mut going = true;
    for wave in waves {
        let mut actions = wave.into_iter().peekable();
        let mut size = 1;
        while going && actions.peek().is_some() {
            let batch: Vec<Action> = actions.by_ref().take(size).collect();
            let verdicts = join_all(batch.iter().map(|action| session.run(action))).await;
            going = verdicts.iter().all(Verdict::is_done);
            let reports = batch.into_iter().zip(verdicts);
            outcome.reports.extend(reports.map(|(action, verdict)| Report { action, verdict }));
            size *= 2;
        }
        outcome.reports.extend(actions.map(|action| Report { action, verdict: Verdict::Skipped }));
    }
    outcome
}
