//! The life of one informer: list, watch, and begin again when either ends.

mod chunks;
mod ingest;

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, sleep_until};
use tower::BoxError;
use trysail_core::{Object, Resource};

use super::{
    InformerMetrics, Options, Shared, Status,
    backoff::Backoff,
    frame::{self, EndlessLine, Lines, Page},
};
use crate::{
    client::{self, Class, Client},
    panic_message,
    store::Listing,
};
use chunks::Chunks;

/// A CRD that is installed is noticed about this soon; an API that answers 404 is cheap to ask.
const MISSING: Duration = Duration::from_secs(5);
const USUAL: Duration = Duration::from_secs(30);
/// A watch that ends sooner was not worth the request: the next one waits.
const SHORT_LIVED: Duration = Duration::from_secs(5);
/// A consistent list can only be older than what we have seen if the API server's storage was replaced, by a
/// backup say. For this long it is taken for a mistake of the server's.
const DOUBT: Duration = Duration::from_secs(30);

pub(super) struct Worker<T> {
    shared: Arc<Shared<T>>,
    client: Client,
    options: Options,
    /// Where to watch from; `None` when a list is needed.
    position: Option<u64>,
    /// How often a list had been asked for when the current one began.
    answering: u64,
    /// The server streams lists as the beginning of a watch (WatchList).
    streams_lists: bool,
    /// Since when the server's lists are older than what we hold.
    doubting: Option<Instant>,
    backoff: Backoff,
}

/// Why a list or watch ended.
enum End {
    /// A paged list is complete.
    Listed,
    /// The server ended the watch, or it was silent for too long.
    Closed(&'static str),
    /// Everything else.
    Failed(Failure),
}

/// What can go wrong while following.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("the watch was ended by the API server: {0}")]
    Ended(client::Status),
    #[error("the API server sent what is no watch event: {0}")]
    Garbage(#[from] serde_json::Error),
    #[error(transparent)]
    Endless(#[from] EndlessLine),
    #[error("the connection broke: {0}")]
    Broken(BoxError),
    #[error("the API server's list is as of version {is}, but version {was} has been seen already")]
    WentBack { was: u64, is: u64 },
}

impl<T: Object + DeserializeOwned> Worker<T> {
    pub(super) fn new(shared: Arc<Shared<T>>, client: Client, options: Options) -> Self {
        Self {
            shared,
            client,
            options,
            position: None,
            answering: 0,
            streams_lists: true,
            doubting: None,
            backoff: Backoff::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let cancel = self.shared.cancel.clone();
        let follow = async move {
            loop {
                let pause = self.guarded().await;
                sleep(pause).await;
            }
        };
        // `follow` never ends by itself.
        let _: Option<()> = cancel.run_until_cancelled(follow).await;
    }

    /// A bug in what decodes, files or reports an object costs a list: an informer that ends in silence would
    /// cost every controller its view.
    async fn guarded(&mut self) -> Duration {
        let attempt = AssertUnwindSafe(self.attempt()).catch_unwind().await;
        attempt.unwrap_or_else(|panic| {
            self.position = None;
            self.metrics().ended(&self.shared.resource, "panic");
            self.say_waiting(&format!("a bug in this program stopped it: {}", panic_message(&*panic)));
            self.backoff.failed(None, USUAL)
        })
    }

    /// One list or watch; returns how long to wait before the next.
    async fn attempt(&mut self) -> Duration {
        self.backoff.start();
        let started = Instant::now();
        let asked = *self.shared.asked.borrow();
        if asked > *self.shared.listed.borrow() {
            self.position = None;
        }
        if self.position.is_none() {
            self.answering = asked;
        }
        let end = match self.position {
            None if !self.streams_lists => self.list().await,
            position => self.watch(position).await,
        };
        match end {
            End::Listed => {
                self.backoff.reset();
                Duration::ZERO
            }
            End::Closed(reason) => {
                self.metrics().ended(&self.shared.resource, reason);
                let lived = started.elapsed();
                tracing::debug!(resource = %self.shared.resource, reason, ?lived, "the watch ended");
                if lived >= SHORT_LIVED || self.is_asked() {
                    self.backoff.reset();
                    Duration::ZERO
                } else {
                    self.backoff.failed(None, USUAL)
                }
            }
            End::Failed(failure) => self.recover(&failure),
        }
    }

    /// A list was asked for after the current one began.
    fn is_asked(&self) -> bool {
        *self.shared.asked.borrow() > self.answering
    }

    fn recover(&mut self, failure: &Failure) -> Duration {
        let resource = self.shared.resource;
        let (class, code) = match failure {
            Failure::Client(error) => (error.class(), error.status().map_or(0, |status| status.code)),
            Failure::Ended(status) if status.code == 410 => (Class::Expired, 410),
            _ => (Class::Unknown, 0),
        };
        let listing = self.position.is_none();
        if listing && self.streams_lists && matches!(code, 400 | 422) {
            tracing::info!(%resource, "the API server does not stream lists; listing in pages");
            self.streams_lists = false;
            return Duration::ZERO;
        }
        let (reason, ceiling) = match class {
            Class::Expired => ("expired", USUAL),
            Class::Gone => ("missing", MISSING),
            Class::Refused | Class::Unauthorized => ("forbidden", USUAL),
            _ => ("error", USUAL),
        };
        let goes_on = matches!(failure, Failure::Client(_) | Failure::Broken(_) | Failure::Ended(_));
        if !goes_on || matches!(class, Class::Expired | Class::Gone) {
            self.position = None;
        }
        self.metrics().ended(&resource, reason);
        if class == Class::Expired && !listing {
            tracing::info!(%resource, "the watch fell behind the server's history; listing again");
        } else {
            self.say_waiting(&self.explain(failure, code));
        }
        let asked = match class {
            Class::Throttled(asked) => asked,
            _ => None,
        };
        self.backoff.failed(asked, ceiling)
    }

    /// Names what to do, where that can be known.
    fn explain(&self, failure: &Failure, code: u16) -> String {
        let resource = &self.shared.resource;
        let name = ResourceName(resource.plural, resource.group);
        match code {
            404 => format!(
                "{name} {} is not served: is its CRD installed? It is asked for again every few seconds",
                resource.version
            ),
            401 | 403 => format!(
                "no permission to list and watch {name} in {}: {failure}. Grant verbs list and watch",
                self.shared.scope
            ),
            _ => failure.to_string(),
        }
    }

    fn say_waiting(&self, why: &str) {
        let resource = self.shared.resource;
        let news = self.shared.status.send_if_modified(|status| {
            let new = Status::Waiting { why: why.to_owned() };
            let news = *status != new;
            *status = new;
            news
        });
        if news {
            tracing::warn!(%resource, %why, "waiting for the API server");
        } else {
            tracing::debug!(%resource, %why, "still waiting for the API server");
        }
    }

    /// Lists in pages, each decoded item by item.
    async fn list(&mut self) -> End {
        match self.try_list().await {
            Ok(()) => End::Listed,
            Err(failure) => End::Failed(failure),
        }
    }

    async fn try_list(&mut self) -> Result<(), Failure> {
        let what = Doing("list", self.shared.resource);
        let new_history = self.accepts_new_history();
        let listing = self.shared.store.begin_list(new_history);
        let mut next = String::new();
        loop {
            let deadline = self.client.timeouts().list;
            let page = self.shared.scope.page(&self.shared.resource, self.options.page_size, &next, deadline);
            let request = page
                .map_err(|error| client::Error::Request { what: what.to_string(), source: error.into() })?;
            let body = self.client.bytes(&what, request).await?;
            let page: Page<'_> = serde_json::from_slice(&body)?;
            let version = page.metadata.resource_version;
            self.check_history(version, listing)?;
            for item in page.items.iter().flatten() {
                match frame::decode_object::<T>(item.get()) {
                    Ok(object) => self.applied(object, Some(listing)),
                    Err(object) => self.unreadable(object, false, Some(listing)),
                }
                tokio::task::consume_budget().await;
            }
            if page.metadata.next.is_empty() {
                self.listed(listing, version);
                return Ok(());
            }
            next = page.metadata.next;
        }
    }

    /// Watches; without a position, what comes first is a list.
    async fn watch(&mut self, position: Option<u64>) -> End {
        match self.try_watch(position).await {
            Ok(reason) => End::Closed(reason),
            Err(failure) => End::Failed(failure),
        }
    }

    async fn try_watch(&mut self, position: Option<u64>) -> Result<&'static str, Failure> {
        let what = Doing("watch", self.shared.resource);
        let lifetime = self.options.watch_lifetime.mul_f64(1.0 + fastrand::f64());
        let request = self.shared.scope.watch(&self.shared.resource, position, lifetime);
        let request = request
            .map_err(|error| client::Error::Request { what: what.to_string(), source: error.into() })?;
        let answer = self.client.open(&what, request).await?;
        if position.is_some() {
            self.say_following();
        }
        let delay = self.options.delay.as_ref().map(|delay| delay(&self.shared.resource));
        let mut chunks = Chunks::new(answer.into_body(), delay.unwrap_or_default());
        let new_history = self.accepts_new_history();
        let mut listing = match position {
            Some(_) => None,
            None => Some(self.shared.store.begin_list(new_history)),
        };
        let mut lines = Lines::default();
        // The server ends the watch itself; this is for one that forgets to.
        let end = Instant::now() + lifetime + self.options.idle;
        let mut asked = self.shared.asked.subscribe();
        let answering = self.answering;
        loop {
            let chunk = tokio::select! {
                chunk = chunks.next() => chunk,
                () = async { drop(asked.wait_for(|asked| *asked > answering).await) } => return Ok("asked"),
                () = sleep(self.options.idle) => {
                    // A watch from a version that the server has not reached (its storage was restored from a
                    // backup) is answered with silence: only a list tells that from a dead connection.
                    self.position = None;
                    return Ok("idle");
                }
                () = sleep_until(end) => return Ok("overdue"),
            };
            let Some(chunk) = chunk else { return Ok("closed") };
            let mut count = 0;
            let fed = lines.feed(&chunk.map_err(Failure::Broken)?, |line| {
                count += 1;
                self.line(line, &mut listing)
            });
            self.metrics().events(&self.shared.resource, count);
            fed?;
            tokio::task::consume_budget().await;
        }
    }

    fn say_following(&mut self) {
        self.backoff.reset();
        self.shared.status.send_if_modified(|status| {
            let news = *status != Status::Synced;
            if let Status::Waiting { .. } = status {
                tracing::info!(resource = %self.shared.resource, "following the API server again");
            }
            *status = Status::Synced;
            news
        });
    }

    /// Refuses a list that is older than what we have seen: acting on it would repeat what was done since.
    fn check_history(&mut self, is: u64, listing: Listing) -> Result<(), Failure> {
        let was = self.shared.store.last_version();
        if is >= was || listing.new_history {
            return Ok(());
        }
        self.doubting.get_or_insert_with(Instant::now);
        Err(Failure::WentBack { was, is })
    }

    fn accepts_new_history(&self) -> bool {
        let accepts = self.doubting.is_some_and(|since| since.elapsed() >= DOUBT);
        if accepts {
            tracing::error!(
                resource = %self.shared.resource,
                "the API server's storage went back in time and stays there: taking its state for the truth"
            );
        }
        accepts
    }

    fn metrics(&self) -> &InformerMetrics {
        &self.options.metrics
    }
}

struct Doing(&'static str, Resource);

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, ResourceName(self.1.plural, self.1.group))
    }
}

struct ResourceName(&'static str, &'static str);

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.1.is_empty() { f.write_str(self.0) } else { write!(f, "{}.{}", self.0, self.1) }
    }
}
