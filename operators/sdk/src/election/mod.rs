//! Who leads: one process at a time holds a Lease, and only its writes leave.
//!
//! The protocol is client-go's, so both can stand for the same lease: 15 s lease, renewed every 2 s, given up
//! when 10 s of renewals failed. Others' clocks are never read: a lease counts from the moment this process saw
//! it change, on its own monotonic clock, so a clock that is set back or ahead elects nobody.
//!
//! Beyond client-go, the [`Fence`] is moved with every renewal: no write leaves later than `renew_deadline` less
//! the time a write may take after the last successful renewal was *sent*. Whatever delays this process (SIGSTOP, swap,
//! a starved CPU), its last write has ended long before another process may lead.
//!
//! A lost lease is an error that ends the process, as in controller-runtime: the caches are hot in the standby
//! that takes over, and a fresh start is the one state that is tested daily.

mod identity;
mod record;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use trysail_core::{Key, Resource, Timestamp, Uid, plan::EventNote};

use self::record::{Observed, Verdict};
use crate::{
    client::{Client, Fence},
    events::{Recorder, Regarding},
    metrics::{ElectionMetrics, Metrics},
};

pub use self::identity::identity;

/// What an election's events are about.
const LEASES: Resource =
    Resource { group: "coordination.k8s.io", version: "v1", kind: "Lease", plural: "leases" };
/// Candidates wait up to this much longer than the retry period, so that they do not march in step.
const JITTER: f64 = 1.2;

/// Which lease, and how it is held.
#[derive(Clone, Debug)]
pub struct ElectionConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who stands for it: [`identity`] unless a test says otherwise.
    pub identity: String,
    /// How long others wait since they last saw a renewal.
    pub lease_duration: Duration,
    /// How long renewals may fail before the lead is given up.
    pub renew_deadline: Duration,
    /// The pause between attempts.
    pub retry_period: Duration,
    /// How long a request may take.
    pub request_timeout: Duration,
}

impl ElectionConfig {
    /// The usual times for a lease.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            request_timeout: Duration::from_secs(4),
        }
    }

    /// `margin` is how long a write may take.
    fn validate(&self, margin: Duration) -> Result<(), ElectionError> {
        let refuse = |why: &str| Err(ElectionError::Config(why.to_owned()));
        if self.lease_duration.as_secs() < 1 {
            return refuse("lease_duration must be a second at least: the Lease counts in seconds");
        }
        if self.lease_duration <= self.renew_deadline {
            return refuse("lease_duration must be longer than renew_deadline");
        }
        if self.renew_deadline <= self.retry_period.mul_f64(JITTER) {
            return refuse("renew_deadline must be longer than 1.2 times retry_period");
        }
        if self.renew_deadline <= margin + self.retry_period {
            return refuse(
                "renew_deadline must be longer than retry_period and the longest write together: \
                 request_timeout or the client's timeout for writes, whichever is longer",
            );
        }
        if self.name.is_empty() || self.namespace.is_empty() {
            return refuse("the lease needs a namespace and a name");
        }
        Ok(())
    }
}

/// Why this process does not lead.
#[derive(Debug, thiserror::Error)]
pub enum ElectionError {
    /// The times do not fit together.
    #[error("leader election: {0}")]
    Config(String),
    /// Renewals failed for too long.
    #[error("lease {lease} could not be renewed within {deadline:?}: {last}")]
    NotRenewed {
        /// Namespace and name.
        lease: String,
        /// For how long.
        deadline: Duration,
        /// The last failure.
        last: String,
    },
    /// Somebody else holds it.
    #[error("lease {lease} was taken by {holder}")]
    Taken {
        /// Namespace and name.
        lease: String,
        /// By whom.
        holder: String,
    },
}

/// One candidate.
#[derive(Debug)]
pub struct Election {
    config: ElectionConfig,
    /// The fence closes this long before the renew deadline: a write that left just before has ended by then.
    margin: Duration,
    leases: Api<Lease>,
    fence: Fence,
    metrics: ElectionMetrics,
    recorder: Recorder,
    leading: bool,
    /// Somebody else led before, as far as can be told.
    succeeds: bool,
    observed: Option<Observed>,
    /// When the last successful acquisition or renewal was sent.
    renewed: Option<Instant>,
}

/// How an attempt ended.
enum Attempt {
    Held,
    HeldBy { holder: String },
    Failed(String),
}

impl Election {
    /// A candidate that moves `client`'s fence, which is closed until [`Election::acquire`] returns.
    pub fn new(client: &Client, config: ElectionConfig, metrics: &Metrics) -> Result<Self, ElectionError> {
        let margin = config.request_timeout.max(client.timeouts().write);
        config.validate(margin)?;
        let leases = Api::namespaced(client.exempt().kube(), &config.namespace);
        let (fence, metrics) = (client.fence().clone(), metrics.election().clone());
        fence.close();
        metrics.leading(&config.name, false);
        Ok(Self {
            config,
            margin,
            leases,
            fence,
            metrics,
            recorder: Recorder::none(),
            leading: false,
            succeeds: false,
            observed: None,
            renewed: None,
        })
    }

    /// Tells of the lead in events about the Lease, as client-go's programs do.
    #[must_use]
    pub fn recorder(mut self, recorder: Recorder) -> Self {
        self.recorder = recorder;
        self
    }

    /// Who was last seen to hold the lease.
    pub fn leader(&self) -> Option<&str> {
        self.observed.as_ref().and_then(Observed::holder)
    }

    /// Waits until this process leads; answers whether somebody else may have led while it was waiting.
    pub async fn acquire(&mut self) -> bool {
        let lease = self.lease();
        tracing::info!(%lease, identity = %self.config.identity, "standing for election");
        let mut told = String::new();
        loop {
            match self.attempt().await {
                Attempt::Held => break,
                Attempt::HeldBy { holder } => {
                    if told != holder {
                        tracing::info!(%lease, %holder, "another process leads; waiting as a warm standby");
                        told = holder;
                    }
                }
                Attempt::Failed(error) => {
                    if told != error {
                        tracing::warn!(%lease, %error, "cannot stand for election; trying again");
                        told = error;
                    }
                }
            }
            sleep(self.config.retry_period.mul_f64(1.0 + fastrand::f64() * JITTER)).await;
        }
        self.leading = true;
        self.metrics.leading(&self.config.name, true);
        self.record("became leader");
        tracing::info!(%lease, "leading");
        self.succeeds
    }

    /// Renews until the lease is lost, and says why. The fence is closed by then.
    pub async fn hold(&mut self) -> ElectionError {
        let mut last = "no answer".to_owned();
        let lost = loop {
            let renewed = self.renewed.unwrap_or_else(Instant::now);
            let deadline = renewed + self.config.renew_deadline;
            sleep_until(deadline.min(Instant::now() + self.config.retry_period)).await;
            if Instant::now() >= deadline {
                let (lease, deadline) = (self.lease(), self.config.renew_deadline);
                break ElectionError::NotRenewed { lease, deadline, last };
            }
            match timeout(deadline - Instant::now(), self.attempt()).await {
                Ok(Attempt::Held) => {}
                Ok(Attempt::HeldBy { holder }) => break ElectionError::Taken { lease: self.lease(), holder },
                Ok(Attempt::Failed(error)) => {
                    tracing::warn!(lease = self.lease(), %error, "the lease was not renewed; trying again");
                    last = error;
                }
                Err(_) => "no answer".clone_into(&mut last),
            }
        };
        self.stop_leading();
        lost
    }

    /// Gives the lease up, so that a standby takes over at once. To be called when all work has ended.
    pub async fn release(&mut self) {
        self.stop_leading();
        let Some(observed) = self.observed.take_if(|observed| observed.is_held_by(&self.config.identity))
        else {
            return;
        };
        let released = observed.released(Timestamp::now());
        let result = timeout(self.config.request_timeout, self.put(&released)).await;
        match result {
            Ok(Ok(_)) => tracing::info!(lease = self.lease(), "the lease is released"),
            // It runs out by itself.
            Ok(Err(error)) => tracing::warn!(lease = self.lease(), %error, "the lease was not released"),
            Err(_) => tracing::warn!(lease = self.lease(), "the lease was not released: no answer"),
        }
    }

    fn stop_leading(&mut self) {
        self.fence.close();
        self.metrics.leading(&self.config.name, false);
        if std::mem::take(&mut self.leading) {
            self.record("stopped leading");
        }
    }

    fn record(&self, what: &str) {
        let uid = self.observed.as_ref().map_or_else(|| Uid::from(""), Observed::uid);
        let key = Key::new(self.config.namespace.as_str(), self.config.name.as_str());
        let note = EventNote::normal("LeaderElection", format!("{} {what}", self.config.identity));
        self.recorder.record(&Regarding { resource: LEASES, key, uid }, note);
    }

    fn lease(&self) -> String {
        format!("{}/{}", self.config.namespace, self.config.name)
    }

    /// One attempt at acquiring or renewing, as one exchange if nothing has changed since the last.
    async fn attempt(&mut self) -> Attempt {
        let sent = Instant::now();
        if let Some(observed) = &self.observed
            && observed.is_held_by(&self.config.identity)
        {
            let renewed = observed.renewed(&self.config, Timestamp::now());
            if let Ok(Ok(lease)) = timeout(self.config.request_timeout, self.put(&renewed)).await {
                return self.holds(lease, sent);
            }
            self.metrics.slow_path(&self.config.name);
        }
        match timeout(self.config.request_timeout, self.read_and_take()).await {
            Ok(Ok(attempt)) => attempt,
            Ok(Err(error)) => Attempt::Failed(error.to_string()),
            Err(_) => Attempt::Failed(format!("no answer within {:?}", self.config.request_timeout)),
        }
    }

    async fn read_and_take(&mut self) -> Result<Attempt, kube::Error> {
        let Some(lease) = self.leases.get_opt(&self.config.name).await? else {
            let (sent, lease) = (Instant::now(), self.new_lease());
            let created = self.leases.create(&PostParams::default(), &lease).await?;
            return Ok(self.holds(created, sent));
        };
        let observed = Observed::after(self.observed.take(), lease, Instant::now());
        let verdict = observed.judge(&self.config.identity, Instant::now());
        self.succeeds |= !matches!(verdict, Verdict::Ours);
        let next = match verdict {
            Verdict::Ours => observed.renewed(&self.config, Timestamp::now()),
            Verdict::Free => observed.taken(&self.config, Timestamp::now()),
            Verdict::HeldBy(holder) => {
                self.observed = Some(observed);
                return Ok(Attempt::HeldBy { holder });
            }
        };
        self.observed = Some(observed);
        let sent = Instant::now();
        let lease = self.put(&next).await?;
        Ok(self.holds(lease, sent))
    }

    /// The resourceVersion in `lease` makes sure that nobody else wrote it meanwhile.
    async fn put(&self, lease: &Lease) -> Result<Lease, kube::Error> {
        self.leases.replace(&self.config.name, &PostParams::default(), lease).await
    }

    fn holds(&mut self, lease: Lease, sent: Instant) -> Attempt {
        self.observed = Some(Observed::after(self.observed.take(), lease, Instant::now()));
        self.renewed = Some(sent);
        self.fence.open_until(sent + self.config.renew_deadline.saturating_sub(self.margin));
        Attempt::Held
    }

    fn new_lease(&self) -> Lease {
        let metadata = ObjectMeta {
            name: Some(self.config.name.clone()),
            namespace: Some(self.config.namespace.clone()),
            ..ObjectMeta::default()
        };
        let spec = record::held(&LeaseSpec::default(), &self.config, Timestamp::now(), 0);
        Lease { metadata, spec: Some(spec) }
    }
}
