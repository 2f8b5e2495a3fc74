//! What happens in each phase, in order.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};

use super::churn;
use super::client::STRATEGIC_PATCH;
use super::end_state::{self, EndState};
use super::figures::{Figures, Phase, PhaseFigures};
use super::home::Home;
use super::manifests;
use super::run::Run;
use super::saved;
use super::scale::Scale;
use super::subject::{Controllers, Quiet, Subject};
use crate::progress::Progress;

/// What one subject made of one size.
#[derive(Debug, Default)]
pub(crate) struct Leg {
    pub(crate) figures: PhaseFigures,
    pub(crate) ends: BTreeMap<Phase, EndState>,
}

/// Everything that runs on `pods` pods: the start, and on two of the sizes what follows.
pub(crate) fn leg(
    home: &Home,
    scale: &Scale,
    subject: (Subject, Option<&Path>),
    pods: usize,
    progress: &Progress,
) -> Result<Leg> {
    saved::restore(home, scale, pods, progress)?;
    let busy = scale.busy_size() == Some(pods);
    let mut leg = Leg::default();
    let name = subject.0.name();
    let mut step = progress.step(format!("{name}: start on {pods} pods"));
    let mut run = Run::start(home, subject.0, subject.1, Controllers::Replicas, pods == 0 || busy)?;
    leg.start(&mut run, scale, pods)?;
    step.done_with(&leg.summary(Phase::Start(pods)));
    if pods == 0 {
        let count = scale.burst * scale.replicas;
        step = progress.step(format!("{name}: burst of {} Deployments, {count} pods", scale.burst));
        leg.burst(&mut run, scale)?;
        step.done_with(&leg.summary(Phase::Burst));
    }
    if busy {
        let count = scale.rolling.min(scale.deployments(pods));
        step = progress.step(format!("{name}: rolling update of {count} Deployments"));
        leg.rolling(&mut run, scale, count)?;
        step.done_with(&leg.summary(Phase::Rolling));
        step = progress.step(format!("{name}: {} status patches a second", scale.churn_rate));
        leg.churn(&mut run, scale)?;
        step.done_with(&leg.summary(Phase::Churn));
    }
    run.finish(|_| Ok(()))?;
    Ok(leg)
}

impl Leg {
    fn start(&mut self, run: &mut Run<'_>, scale: &Scale, pods: usize) -> Result<()> {
        let mark = run.started();
        let quiet = run.wait_quiet()?;
        let mut figures = run.figures(&mark, quiet, 0, scale.replicas as u64)?;
        if figures.calls.count("watch pods") == 0 {
            bail!("the subject is quiet, but never opened a watch of pods: it does not work");
        }
        figures.idle_cpu = Some(run.idle(scale.settle)?);
        // Memory after it had time to give some back, and any write that came late.
        let settled = run.figures(&mark, quiet, 0, scale.replicas as u64)?;
        (figures.rss, figures.rss_anon, figures.writes) = (settled.rss, settled.rss_anon, settled.writes);
        figures.calls = settled.calls;
        self.end(run, Phase::Start(pods), figures)
    }

    fn burst(&mut self, run: &mut Run<'_>, scale: &Scale) -> Result<()> {
        let pods = scale.burst * scale.replicas;
        let mark = run.mark()?;
        let wanted = run.create_deployments(scale.burst, scale.replicas)?;
        let quiet = finish(run, &wanted, pods)?;
        let figures = run.figures(&mark, quiet, pods as u64, scale.replicas as u64)?;
        self.end(run, Phase::Burst, figures)
    }

    fn rolling(&mut self, run: &mut Run<'_>, scale: &Scale, count: usize) -> Result<()> {
        let api = run.api()?;
        let mark = run.mark()?;
        let mut wanted = BTreeMap::new();
        for at in 0..count {
            let (namespace, name) = manifests::deployment_names(at);
            let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
            let patched = api.patch(&path, STRATEGIC_PATCH, &manifests::new_revision(2))?;
            wanted.insert(
                format!("{namespace}/{name}"),
                patched["metadata"]["generation"].as_u64().unwrap_or(2),
            );
        }
        let quiet = finish(run, &wanted, count * scale.replicas * 2)?;
        // One create and one delete for each pod that is replaced.
        let writes = (count * scale.replicas * 2) as u64;
        let limit = scale.replicas + manifests::surge(scale.replicas);
        let figures = run.figures(&mark, quiet, writes, limit as u64)?;
        self.end(run, Phase::Rolling, figures)
    }

    fn churn(&mut self, run: &mut Run<'_>, scale: &Scale) -> Result<()> {
        let (api, pods) = (run.api()?, run.observer.world().pod_names());
        let mark = run.mark()?;
        let rate = churn::churn(&api, &pods, scale)?;
        let quiet = run.wait_quiet()?;
        let mut figures = run.figures(&mark, quiet, 0, scale.replicas as u64)?;
        figures.rate = Some(rate);
        self.end(run, Phase::Churn, figures)
    }

    pub(super) fn end(&mut self, run: &Run<'_>, phase: Phase, figures: Figures) -> Result<()> {
        self.figures.insert(phase, figures);
        self.ends.insert(phase, end_state::read(&run.api()?)?);
        Ok(())
    }

    pub(super) fn summary(&self, phase: Phase) -> String {
        let Some(figures) = self.figures.get(&phase) else { return String::new() };
        let mib = figures.rss as f64 / f64::from(1 << 20);
        format!("{:.2} CPU-s, {mib:.1} MiB, {} writes", figures.cpu_seconds, figures.writes)
    }
}

/// Waits for the end of a rollout, then for the subject's quiet; the time counts to the first.
pub(super) fn finish(run: &mut Run<'_>, wanted: &BTreeMap<String, u64>, pods: usize) -> Result<Quiet> {
    let done: Instant = run.wait_done(wanted, Scale::patience(pods), |_| ())?;
    let quiet = run.wait_quiet()?;
    Ok(Quiet { since: done, reached: quiet.reached })
}
