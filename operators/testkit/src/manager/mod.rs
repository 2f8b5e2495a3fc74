//! The controllers under test, in one process: views that may lag, the gate that waits for own writes, the
//! planners, and the execution of their plans. It stands for the SDK's runtime and follows the same rules.
//!
//! A key is looked at when something was delivered to a view that its controller reads, when the time comes
//! that its last plan asked for, or when its last plan was not carried out. A plan that forgets to ask for a
//! moment at which it would decide differently is therefore never looked at then, as in the SDK.

mod apply;
mod cache;
mod controller;
mod informers;
mod memory;

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use trysail_core::{Face, Key, Resource};

pub use cache::Cached;
pub use controller::Registration;
pub use informers::Informers;

use apply::Desk;
use controller::Controller;

use crate::{cluster::Cluster, kinds};

/// How often [`Manager::settle`] looks at everything before it gives up: a rollout of ten pods takes about
/// thirty rounds.
const MAX_ROUNDS: usize = 400;

/// What goes wrong while plans are carried out. Countdowns are in actions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The process dies right after so many further actions.
    pub crash_after: Option<u32>,
    /// The reply to the action after so many further ones is lost, although it was carried out.
    pub lose_reply_after: Option<u32>,
    /// The action after so many further ones is lost itself, and the process cannot know that it was.
    pub lose_request_after: Option<u32>,
}

/// One manager process.
pub struct Manager {
    /// What goes wrong.
    pub faults: Faults,
    /// Without the gate, a key is looked at although its own writes are not in view yet.
    pub is_gated: bool,
    /// What was done and told since it was last taken.
    pub journal: Vec<String>,
    /// How many actions were tried since the process started for the first time.
    pub actions: usize,
    registrations: Vec<Registration>,
    informers: Informers,
    controllers: Vec<Box<dyn Controller>>,
}

impl Manager {
    /// A process with all controllers of a face that starts now: its views are complete.
    pub fn start(face: Face, cluster: &Cluster) -> Self {
        Self::with(kinds::all(face), cluster)
    }

    /// A process with these controllers.
    pub fn with(registrations: Vec<Registration>, cluster: &Cluster) -> Self {
        let mut manager = Self {
            faults: Faults::default(),
            is_gated: true,
            journal: Vec::new(),
            actions: 0,
            registrations,
            informers: Informers::default(),
            controllers: Vec::new(),
        };
        manager.restart(cluster);
        manager
    }

    fn restart(&mut self, cluster: &Cluster) {
        self.faults = Faults::default();
        self.informers = Informers::default();
        self.controllers = self.registrations.iter().map(|kind| kind.start(&mut self.informers)).collect();
        self.relist(None, cluster);
    }

    /// The process dies and starts anew: memory is lost, views are complete again.
    pub fn crash(&mut self, cluster: &Cluster) {
        let lags = self.informers.lags();
        self.restart(cluster);
        self.informers.set_lags(&lags);
    }

    /// Every view lags so many events behind from now on.
    pub fn set_lag(&mut self, events: usize) {
        self.informers.feeds(None).for_each(|feed| feed.set_lag(events));
    }

    /// The views of one resource lag so many events behind from now on.
    pub fn set_lag_of(&mut self, resource: Resource, events: usize) {
        self.informers.feeds(Some(resource)).for_each(|feed| feed.set_lag(events));
    }

    /// The watch of a resource is cut. When so many further events have happened it is listed anew: nobody saw
    /// what was between.
    pub fn miss_events(&mut self, resource: Resource, events: usize) {
        self.informers.feeds(Some(resource)).for_each(|feed| feed.cut(events));
    }

    /// The last events of a resource are delivered once more.
    pub fn repeat_events(&mut self, resource: Resource, events: usize) {
        self.informers.feeds(Some(resource)).for_each(|feed| feed.repeat(events));
    }

    /// The views of a resource, or all of them, are listed anew.
    pub fn relist(&mut self, resource: Option<Resource>, cluster: &Cluster) {
        self.informers.feeds(resource).for_each(|feed| feed.relist(cluster));
    }

    /// What is watched, in the order in which it was first asked for.
    pub fn resources(&self) -> Vec<Resource> {
        self.informers.feeds(None).map(cache::Feed::resource).collect()
    }

    /// Looks at every key that there is a reason to look at. Answers how many actions took effect.
    pub fn round(&mut self, cluster: &mut Cluster) -> usize {
        self.informers.catch_up(cluster);
        let mut done = 0;
        for place in 0..self.controllers.len() {
            self.controllers[place].tidy();
            for (key, uid) in self.controllers[place].keys() {
                let mut desk = Desk {
                    informers: &self.informers,
                    is_gated: self.is_gated,
                    faults: &mut self.faults,
                    journal: &mut self.journal,
                    actions: &mut self.actions,
                };
                let look = self.controllers[place].look(&mut desk, cluster, &key, &uid);
                done += look.done;
                if look.crashed {
                    self.crash(cluster);
                }
            }
        }
        done
    }

    /// Rounds until nothing is left to do at this moment; short waits (coalesced statuses) are slept through.
    /// Answers whether that came to an end.
    pub fn settle(&mut self, cluster: &mut Cluster) -> bool {
        for _ in 0..MAX_ROUNDS {
            if self.round(cluster) > 0 {
                continue;
            }
            match self.next_wake(cluster.now, SignedDuration::from_secs(1)) {
                Some(at) => cluster.now = at,
                None => return true,
            }
        }
        false
    }

    /// The next look that somebody asked for within some time.
    pub fn next_wake(&self, now: Timestamp, within: SignedDuration) -> Option<Timestamp> {
        let until = now + within;
        let wakes = self.controllers.iter().flat_map(|controller| controller.wakes());
        wakes.filter(|at| *at > now && *at <= until).min()
    }

    /// Every key is looked at in the next round, reason or not.
    pub fn nudge(&mut self) {
        self.controllers.iter_mut().for_each(|controller| controller.nudge());
    }

    /// What each key waits for, in words: the plans of now, without carrying them out.
    pub fn why(&mut self, cluster: &Cluster) -> Vec<(Key, String)> {
        self.informers.catch_up(cluster);
        self.plans(cluster)
    }

    /// The plans of now, by what the views have seen so far.
    pub fn plans(&self, cluster: &Cluster) -> Vec<(Key, String)> {
        let mut plans = Vec::new();
        for controller in &self.controllers {
            for (key, uid) in controller.keys() {
                let plan = controller.why(&key, &uid, cluster.now);
                plans.extend(plan.map(|plan| (key, plan)));
            }
        }
        plans
    }

    /// Keys that are refused, held or due at this moment: none, when all work is done.
    pub fn backlog(&mut self, cluster: &Cluster) -> Vec<String> {
        self.informers.catch_up(cluster);
        let desk = Desk {
            informers: &self.informers,
            is_gated: self.is_gated,
            faults: &mut self.faults,
            journal: &mut self.journal,
            actions: &mut self.actions,
        };
        self.controllers.iter().flat_map(|controller| controller.backlog(&desk, cluster.now)).collect()
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("controllers", &self.registrations)
            .field("informers", &self.informers)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}
