//! One subject on one control plane, from start to end, and how a phase of it is measured.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::account::process_cpu;
use super::binder::Binder;
use super::calls::Calls;
use super::client::Api;
use super::figures::Figures;
use super::home::{Home, User};
use super::manifests;
use super::observer::Observer;
use super::plane::Plane;
use super::subject::{Controllers, Quiet, Running, Subject};
use crate::interrupt;

const POLL: Duration = Duration::from_millis(100);
/// The API server fills its caches after it became ready; the subject starts when that is over.
const CALM_LIMIT: Duration = Duration::from_secs(60);
const CALM_WINDOW: Duration = Duration::from_secs(1);
const CALM_SHARE: f64 = 0.2;

/// A subject at work on a control plane of its own. Dropping it ends all of it.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    // Fields drop in order: clients before servers.
    subject: Running,
    plane: Plane<'a>,
    pub(crate) observer: Observer,
    binder: Option<Binder>,
    home: &'a Home,
    started: Mark,
}

/// The state of all counters at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    at: Instant,
    cpu: Duration,
    apiserver_cpu: Duration,
    bench_cpu: Duration,
    audit: u64,
}

impl<'a> Run<'a> {
    /// Starts everything on the data that lie in the home. `alive` starts what makes pods run, too.
    pub(crate) fn start(
        home: &'a Home,
        subject: Subject,
        manager: Option<&Path>,
        controllers: Controllers,
        alive: bool,
    ) -> Result<Self> {
        let mut plane = Plane::start(home)?;
        let api = plane.api(User::Driver)?;
        if alive {
            plane.start_kubelets()?;
        }
        let observer = Observer::start(&api)?;
        let binder = if alive { Some(Binder::start(&api)?) } else { None };
        wait_calm(&mut plane)?;
        observer.world().begin_phase();
        let apiserver_cpu = plane.apiserver_cpu()?;
        let bench_cpu = own_cpu()?;
        let started = Mark { at: Instant::now(), cpu: Duration::ZERO, apiserver_cpu, bench_cpu, audit: 0 };
        let subject = Running::start(subject, home, &plane, manager, controllers)?;
        Ok(Self { subject, plane, observer, binder, home, started })
    }

    pub(crate) fn api(&self) -> Result<Api> {
        self.plane.api(User::Driver)
    }

    /// The mark of the subject's start.
    pub(crate) fn started(&self) -> Mark {
        self.started
    }

    /// Begins a phase.
    pub(crate) fn mark(&mut self) -> Result<Mark> {
        self.observer.world().begin_phase();
        let (_, audit) = Calls::read(&self.home.audit_log(), self.started.audit)?;
        let (cpu, apiserver_cpu) = (self.subject.cpu()?, self.plane.apiserver_cpu()?);
        Ok(Mark { at: Instant::now(), cpu, apiserver_cpu, bench_cpu: own_cpu()?, audit })
    }

    /// The figures since `mark`. `pod_writes` is the number of creates and deletes that the phase needs, `limit`
    /// the number of active pods that no owner may exceed.
    pub(crate) fn figures(&self, mark: &Mark, end: Quiet, pod_writes: u64, limit: u64) -> Result<Figures> {
        self.observer.check()?;
        let (calls, _) = Calls::read(&self.home.audit_log(), mark.audit)?;
        let memory = self.subject.memory()?;
        let mut world = self.observer.world();
        Ok(Figures {
            seconds: end.since.saturating_duration_since(mark.at).as_secs_f64(),
            cpu_seconds: self.subject.cpu()?.saturating_sub(mark.cpu).as_secs_f64(),
            apiserver_cpu_seconds: self
                .plane
                .apiserver_cpu()?
                .saturating_sub(mark.apiserver_cpu)
                .as_secs_f64(),
            bench_cpu_seconds: own_cpu()?.saturating_sub(mark.bench_cpu).as_secs_f64(),
            idle_cpu: None,
            rss: memory.rss,
            rss_anon: memory.anon,
            rss_peak: memory.peak,
            group_peak: self.subject.group_peak(),
            writes: calls.writes(),
            minimum_writes: pod_writes + world.take_status_writes(),
            overshoot: world.overshoot(limit),
            rate: None,
            quiet: end.reached,
            calls,
        })
    }

    /// Creates the first `count` Deployments; returns the generation at which each is to be done.
    pub(crate) fn create_deployments(&self, count: usize, replicas: usize) -> Result<BTreeMap<String, u64>> {
        let api = self.api()?;
        let mut wanted = BTreeMap::new();
        for at in 0..count {
            interrupt::check()?;
            let (namespace, name) = manifests::deployment_names(at);
            let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
            let created = api.create(&path, &manifests::deployment(at, replicas))?;
            wanted.insert(
                format!("{namespace}/{name}"),
                created["metadata"]["generation"].as_u64().unwrap_or(1),
            );
        }
        Ok(wanted)
    }

    /// Waits until each owner's status says that it is done at its generation.
    pub(crate) fn wait_done(
        &mut self,
        wanted: &BTreeMap<String, u64>,
        limit: Duration,
        mut tell: impl FnMut(usize),
    ) -> Result<Instant> {
        let begun = Instant::now();
        loop {
            let (unfinished, ready) = {
                let world = self.observer.world();
                (world.unfinished(wanted), world.ready_pods())
            };
            if unfinished == 0 {
                return Ok(Instant::now());
            }
            tell(ready);
            self.check()?;
            if begun.elapsed() > limit {
                let log = self.subject.log_tail();
                bail!(
                    "{unfinished} of {} owners are not done after {} s ({ready} pods ready); the end of the \
                     subject's log:\n{log}",
                    wanted.len(),
                    limit.as_secs()
                );
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until the subject has nothing left to do.
    pub(crate) fn wait_quiet(&mut self) -> Result<Quiet> {
        let quiet = self.subject.wait_quiet()?;
        self.check()?;
        Ok(quiet)
    }

    /// Lets time pass; returns the share of a core that the subject used.
    pub(crate) fn idle(&mut self, time: Duration) -> Result<f64> {
        let (begun, before) = (Instant::now(), self.subject.cpu()?);
        while begun.elapsed() < time {
            thread::sleep(POLL);
            self.check()?;
        }
        Ok(self.subject.cpu()?.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64())
    }

    /// Fails when anything that must run does not, and when the user wants to stop.
    pub(crate) fn check(&mut self) -> Result<()> {
        interrupt::check()?;
        self.subject.check()?;
        self.plane.check()?;
        self.observer.check()?;
        if self.binder.as_ref().is_some_and(Binder::failed) {
            bail!("the bench's binder lost its watch of the API server: the machine may be overloaded");
        }
        Ok(())
    }

    /// Ends the subject, then, after `last`, the control plane.
    pub(crate) fn finish(self, last: impl FnOnce(&Plane<'a>) -> Result<()>) -> Result<()> {
        drop(self.subject);
        last(&self.plane)?;
        self.plane.stop()
    }
}

fn own_cpu() -> Result<Duration> {
    process_cpu(std::process::id())
}

/// Waits until the API server does little; goes on after a while, since nothing here depends on it but noise.
fn wait_calm(plane: &mut Plane<'_>) -> Result<()> {
    let deadline = Instant::now() + CALM_LIMIT;
    let mut before = plane.apiserver_cpu()?;
    while Instant::now() < deadline {
        thread::sleep(CALM_WINDOW);
        interrupt::check()?;
        plane.check()?;
        let now = plane.apiserver_cpu()?;
        if now.saturating_sub(before).as_secs_f64() < CALM_SHARE * CALM_WINDOW.as_secs_f64() {
            break;
        }
        before = now;
    }
    Ok(())
}
