//! The process around controllers: what starts when, who leads, and how it ends.
//!
//! Start: HTTP server (probes must answer early) → informers → standing for election, with the caches hot → lists of
//! what the predecessor left → controllers. Stop, each step within a bounded time: controllers finish the keys they
//! have, while the lease is still renewed so that their last writes leave → informers → the lease is released → events
//! → HTTP server. Losing the lease is an error; SIGTERM and SIGINT are not.

mod server;

use std::{collections::HashSet, fmt, future::Future, net::SocketAddr, time::Duration};

use futures::future::BoxFuture;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use self::server::{Readiness, Server};
use crate::{
    apply::Applier,
    client::{self, Client, ClientMetrics, Fence},
    election::{Election, ElectionConfig, ElectionError},
    events::Events,
    gate::GateMetrics,
    informer::{self, Informers, Status},
    metrics::Metrics,
};

/// How long controllers may take to finish the keys they have. What follows takes at most 6.5 s (the lease,
/// events, open scrapes), and pods are given 30 s by default before they are killed.
pub const GRACE: Duration = Duration::from_secs(22);
/// A standby does not wait for ever for caches that cannot fill, say for want of a CRD: others may.
const WARM_UP: Duration = Duration::from_secs(120);
/// How often caches are asked whether they are full, while they fill.
const POLL: Duration = Duration::from_millis(50);

/// What controllers are built upon, shared by all of a process.
#[derive(Debug)]
pub struct Services {
    /// The door to the API server.
    pub client: Client,
    /// One list and watch per resource.
    pub informers: Informers,
    /// Where plans are written through.
    pub applier: Applier,
    /// Where events go.
    pub events: Events,
    /// What is counted.
    pub metrics: Metrics,
    /// What gates count.
    pub gates: GateMetrics,
}

/// A controller, before it has a process around it.
pub trait Runnable: fmt::Debug + Send {
    /// Its name, for people.
    fn name(&self) -> &str;
    /// Starts its informers. It must not write anything, nor keep a queue: a standby gets no further.
    fn prepare(self: Box<Self>, services: &Services) -> Box<dyn Prepared>;
}

/// A controller whose caches fill.
pub trait Prepared: Send {
    /// Works until told to stop, and ends when the last key is finished.
    fn run(self: Box<Self>, stop: CancellationToken) -> BoxFuture<'static, ()>;
}

/// Why a manager ended, other than having been told to.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// No API server is configured, or its credentials cannot be used.
    #[error("no way to the API server: {0}. Set KUBECONFIG, or run in a pod with a service account")]
    Config(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Probes and metrics cannot be served.
    #[error("cannot serve probes and metrics on {address}: {source}; choose another address")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The lease was lost, or its times do not fit together.
    #[error(transparent)]
    Election(#[from] ElectionError),
    /// Two controllers have one name, and would overwrite each other's metrics.
    #[error("two controllers are named {0:?}; give one of them another name")]
    Twins(String),
    /// A controller ended by itself.
    #[error("controller {0} ended by itself: this is a bug")]
    Ended(String),
    /// Some controllers did not finish in time.
    #[error("some controllers were still busy {0:?} after the stop, and were cut off")]
    Grace(Duration),
    /// Signals cannot be received.
    #[error("signals cannot be received: {0}")]
    Signals(#[source] std::io::Error),
}

/// Builds a [`Manager`].
#[must_use = "a manager does nothing before it runs"]
pub struct Builder {
    name: String,
    client: Option<Client>,
    election: Option<ElectionConfig>,
    address: Option<SocketAddr>,
    grace: Duration,
    metrics: Metrics,
    informers: informer::Options,
    controllers: Vec<Box<dyn Runnable>>,
}

impl Builder {
    /// Uses this client. Its metrics are registered; if there is an election, its fence is closed until this
    /// process leads. Without one, the kubeconfig or in-cluster configuration says where to go.
    pub fn client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Works only while it holds this lease. Without one, it is the only process there is.
    pub fn election(mut self, config: ElectionConfig) -> Self {
        self.election = Some(config);
        self
    }

    /// Serves `/healthz`, `/readyz` and `/metrics` here.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// How long a stop may wait for controllers to finish the keys they have.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Counts here.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// How informers behave.
    pub fn informers(mut self, options: informer::Options) -> Self {
        self.informers = options;
        self
    }

    /// Runs this controller.
    pub fn controller(mut self, controller: impl Runnable + 'static) -> Self {
        self.controllers.push(Box::new(controller));
        self
    }

    /// Binds the address, connects, and starts the informers. Must be called within a tokio runtime.
    pub async fn build(self) -> Result<Manager, ManagerError> {
        let Self { name, client, election, address, grace, metrics, informers, controllers } = self;
        let mut names = HashSet::new();
        if let Some(twin) = controllers.iter().find(|controller| !names.insert(controller.name())) {
            return Err(ManagerError::Twins(twin.name().to_owned()));
        }
        let readiness = Readiness::default();
        let server = match address {
            Some(address) => Some(Server::bind(address, metrics.clone(), readiness.clone()).await?),
            None => None,
        };
        let client = match client {
            Some(client) => client,
            None => connect(&name, election.is_some()).await?,
        };
        let election = election.map(|config| Election::new(&client, config, &metrics)).transpose()?;
        let gates = GateMetrics::default();
        metrics.register(|registry| {
            client.metrics().register(registry);
            informers.metrics.register(registry);
            gates.register(registry);
        });
        let informers = Informers::new(client.clone(), informers);
        let measured = informers.clone();
        metrics.before_scrape(move || measured.refresh_metrics());
        let services = Services {
            applier: Applier::new(client.clone()),
            events: Events::start(&client, &metrics),
            informers,
            metrics,
            gates,
            client,
        };
        let prepare =
            |controller: Box<dyn Runnable>| (controller.name().to_owned(), controller.prepare(&services));
        let controllers = controllers.into_iter().map(prepare).collect();
        let election = election.map(|election| election.recorder(services.events.recorder(&name)));
        Ok(Manager { name, services, election, server, readiness, grace, controllers })
    }

    /// [Builds](Builder::build) it and runs it until SIGTERM or SIGINT.
    pub async fn run(self) -> Result<(), ManagerError> {
        let signal = signals()?;
        self.build().await?.run_until(signal).await
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Controllers, their caches, an election and an end.
pub struct Manager {
    name: String,
    services: Services,
    election: Option<Election>,
    server: Option<Server>,
    readiness: Readiness,
    grace: Duration,
    controllers: Vec<(String, Box<dyn Prepared>)>,
}

impl Manager {
    /// A manager; its name is that of the program in logs and of the user agent.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder {
            name: name.into(),
            client: None,
            election: None,
            address: None,
            grace: GRACE,
            metrics: Metrics::new(),
            informers: informer::Options::default(),
            controllers: Vec::new(),
        }
    }

    /// What controllers are built upon.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Where probes and metrics are served, if they are.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(Server::address)
    }

    /// Runs until `stop` is ready, the lease is lost or a controller ends by itself.
    pub async fn run_until(self, stop: impl Future<Output = ()> + Send) -> Result<(), ManagerError> {
        let Self { name, services, mut election, server, readiness, grace, controllers } = self;
        tokio::pin!(stop);
        tracing::info!(name, controllers = controllers.len(), "starting");
        let started = async {
            warm_up(&services.informers).await;
            readiness.set_ready();
            if let Some(election) = &mut election
                && election.acquire().await
            {
                // The predecessor's last writes may be on their way to us: whoever goes by what he saw before them does
                // them once more. Controllers wait for these lists.
                services.informers.list_anew();
            }
        };
        let started = tokio::select! {
            biased;
            () = &mut stop => false,
            () = started => true,
        };
        let result = if started { lead(election.as_mut(), controllers, stop, grace).await } else { Ok(()) };
        readiness.set_stopping();
        services.informers.stop().await;
        if let Some(election) = &mut election {
            // Only when all work has ended: what still runs must not meet the next leader's work. It is cut off
            // by the fence, and the lease runs out.
            if matches!(result, Ok(())) {
                election.release().await;
            }
        }
        services.events.stop(Duration::from_secs(2)).await;
        if let Some(server) = server {
            server.stop().await;
        }
        tracing::info!(name, "stopped");
        result
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Runs the controllers while the lease is held, and for as long as they need to finish.
async fn lead(
    election: Option<&mut Election>,
    controllers: Vec<(String, Box<dyn Prepared>)>,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Result<(), ManagerError> {
    let token = CancellationToken::new();
    let mut running = JoinSet::new();
    for (name, controller) in controllers {
        let run = controller.run(token.clone());
        running.spawn(async move {
            run.await;
            name
        });
    }
    let lost = async {
        match election {
            Some(election) => election.hold().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(lost, stop);
    let idle = running.is_empty();
    let mut result = tokio::select! {
        biased;
        () = &mut stop => Ok(()),
        lost = &mut lost => Err(lost.into()),
        Some(ended) = running.join_next(), if !idle => {
            Err(ManagerError::Ended(ended.unwrap_or_else(|error| error.to_string())))
        }
    };
    token.cancel();
    let deadline = Instant::now() + grace;
    let finished = async { while running.join_next().await.is_some() {} };
    tokio::pin!(finished);
    let mut renewing = result.is_ok();
    loop {
        tokio::select! {
            () = &mut finished => break,
            // Renewed until the last key is finished; if that fails, the fence is closed and the rest is harmless.
            error = &mut lost, if renewing => {
                renewing = false;
                result = Err(error.into());
            }
            () = tokio::time::sleep_until(deadline) => {
                tracing::error!("controllers were still busy {grace:?} after the stop");
                if result.is_ok() {
                    result = Err(ManagerError::Grace(grace));
                }
                break;
            }
        }
    }
    result
}

/// Returns when no informer is at its first list any more, or after [`WARM_UP`].
async fn warm_up(informers: &Informers) {
    let started = Instant::now();
    let mut told = Duration::ZERO;
    loop {
        let cold: Vec<_> = informers
            .not_following()
            .into_iter()
            .filter(|(_, status)| matches!(status, Status::Starting))
            .map(|(resource, _)| resource.plural)
            .collect();
        if cold.is_empty() || started.elapsed() >= WARM_UP {
            return;
        }
        if started.elapsed() >= told + Duration::from_secs(10) {
            told = started.elapsed();
            tracing::info!(resources = cold.join(","), "caches are filling");
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn connect(name: &str, elected: bool) -> Result<Client, ManagerError> {
    let config = kube::Config::infer().await.map_err(|error| ManagerError::Config(error.into()))?;
    let options = client::Options {
        user_agent: format!("{name}/{}", env!("CARGO_PKG_VERSION")),
        fence: if elected { Fence::closed() } else { Fence::always_open() },
        metrics: ClientMetrics::default(),
        ..client::Options::default()
    };
    Client::new(&config, options).map_err(|error| ManagerError::Config(error.into()))
}

/// Ready at the first SIGTERM or SIGINT. Registered at once, so that none is missed while things start.
pub fn signals() -> Result<impl Future<Output = ()> + Send, ManagerError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(ManagerError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ManagerError::Signals)?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!("{name}: stopping");
    })
}
