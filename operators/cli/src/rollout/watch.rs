//! `rollout status`: follows one Deployment until its rollout is done, fails, or time is up.

use std::{
    io::{self, IsTerminal, Write as _},
    pin::pin,
    time::Duration,
};

use anyhow::{Result, anyhow, bail};
use futures::StreamExt as _;
use kube::{
    core::DynamicObject,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use trysail_core::Face;

use super::status::{Report, hint, judge};
use crate::{
    args::{Output, Status},
    cluster::Cluster,
    failure::{Cause, Failure},
    target::Target,
    text::{note, out},
};

/// After so long without a change the reader is told what may hold things up.
const HINT_AFTER: Duration = Duration::from_secs(10);

/// Tells how the rollout goes; an error when it cannot succeed.
pub(crate) async fn until_done(cluster: &Cluster, target: &Target, args: &Status) -> Result<()> {
    let mut teller = Teller::new(target, args);
    if teller.tell(&target.object, args.revision)? || !args.watch {
        return teller.finish();
    }
    let api = cluster.dynamic(target.resource());
    let config = watcher::Config::default().fields(&format!("metadata.name={}", target.name));
    let mut events = pin!(watcher(api, config).default_backoff());
    let deadline = (!args.timeout.is_zero()).then(|| Instant::now() + args.timeout);
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // Set while a (re)listing has not shown the object yet.
    let mut listed = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = ticks.tick() => {
                teller.tick()?;
                continue;
            }
            () = until(deadline) => {
                teller.clear()?;
                bail!("timed out waiting for the condition: {}", teller.last_message());
            }
        };
        let object = match event {
            Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => object,
            Some(Ok(watcher::Event::Init)) => {
                listed = false;
                continue;
            }
            Some(Ok(watcher::Event::InitDone)) if listed => continue,
            Some(Ok(watcher::Event::Delete(_) | watcher::Event::InitDone)) => return teller.deleted(),
            Some(Err(error)) => {
                teller.trouble(cluster, target, error)?;
                continue;
            }
            None => bail!("the watch of {} ended", target.printed()),
        };
        listed = true;
        if object.metadata.uid.as_deref() != target.object["metadata"]["uid"].as_str() {
            return teller.deleted();
        }
        if teller.tell(&whole(&object)?, args.revision)? {
            return teller.finish();
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn whole(object: &DynamicObject) -> Result<Value> {
    Ok(serde_json::to_value(object)?)
}

/// How reports reach the reader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Redrawn in place on a terminal.
    Live,
    /// A line per sentence.
    Lines,
    /// A JSON document per line and change.
    Json,
}

/// Tells the reader what has changed.
struct Teller {
    printed: String,
    native: bool,
    style: Style,
    started: Instant,
    changed: Instant,
    hinted: bool,
    troubled: bool,
    last: Option<Report>,
}

impl Teller {
    fn new(target: &Target, args: &Status) -> Self {
        let style = match args.output {
            Some(Output::Json) => Style::Json,
            None if args.watch && io::stdout().is_terminal() => Style::Live,
            None => Style::Lines,
        };
        Self {
            printed: target.printed(),
            native: target.face == Face::Native,
            style,
            started: Instant::now(),
            changed: Instant::now(),
            hinted: false,
            troubled: false,
            last: None,
        }
    }

    /// Tells one reading; true when the rollout is done.
    fn tell(&mut self, object: &Value, revision: i64) -> Result<bool> {
        self.troubled = false;
        let report = match judge(object, revision) {
            Ok(report) => report,
            Err(error) => {
                self.clear()?;
                return Err(error);
            }
        };
        let done = report.done;
        if self.last.as_ref() == Some(&report) {
            return Ok(done);
        }
        let same_sentence = self.last.as_ref().is_some_and(|last| last.message == report.message);
        self.changed = Instant::now();
        self.hinted = false;
        match self.style {
            Style::Json => out(&format!("{}\n", report.to_json(object)))?,
            Style::Lines if !same_sentence => out(&format!("{}\n", report.message))?,
            Style::Lines | Style::Live => {}
        }
        self.last = Some(report);
        self.draw()?;
        Ok(done)
    }

    fn tick(&mut self) -> Result<()> {
        if !self.hinted && self.changed.elapsed() >= HINT_AFTER {
            self.hinted = true;
            if let Some(hint) = self.last.as_ref().and_then(|report| hint(report, &self.printed, self.native))
            {
                self.clear()?;
                note(&hint);
            }
        }
        self.draw()
    }

    fn draw(&self) -> Result<()> {
        if let Some(report) = self.last.as_ref().filter(|_| self.style == Style::Live) {
            out(&format!("\r\x1b[K{}", report.live(&self.printed, self.started.elapsed())))?;
        }
        Ok(())
    }

    /// Leaves an empty line on a terminal for what is printed next.
    fn clear(&self) -> Result<()> {
        if self.style == Style::Live {
            io::stdout().write_all(b"\r\x1b[K")?;
            io::stdout().flush()?;
        }
        Ok(())
    }

    /// The last sentence stays on the terminal.
    fn finish(&self) -> Result<()> {
        self.clear()?;
        if self.style == Style::Live {
            out(&format!("{}\n", self.last_message()))?;
        }
        Ok(())
    }

    fn last_message(&self) -> &str {
        self.last.as_ref().map_or("nothing was seen yet", |report| report.message.as_str())
    }

    fn deleted(&self) -> Result<()> {
        self.clear()?;
        bail!("{}: object has been deleted", self.printed)
    }

    /// A watch that broke is resumed; one that is not allowed cannot be.
    fn trouble(&mut self, cluster: &Cluster, target: &Target, error: watcher::Error) -> Result<()> {
        let attempt = cluster.attempt("watch", target.resource()).name(&target.name);
        let failure: Failure = match error {
            watcher::Error::InitialListFailed(error) => {
                cluster.attempt("list", target.resource()).name(&target.name).failed(error)
            }
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                attempt.failed(error)
            }
            watcher::Error::WatchError(status) => attempt.failed(kube::Error::Api(status)),
            watcher::Error::NoResourceVersion => return Err(anyhow!("{error}")),
        };
        if matches!(failure.cause, Cause::Forbidden(_) | Cause::Unauthorized(_) | Cause::NotServed) {
            self.clear()?;
            return Err(failure.into());
        }
        if !self.troubled {
            self.troubled = true;
            self.clear()?;
            note(&format!("note: {failure}\n  trying again"));
        }
        Ok(())
    }
}
