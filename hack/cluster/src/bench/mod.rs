//! Our controllers against kube-controller-manager's, side by side on one machine.
//!
//! Each subject runs alone on a control plane of its own: etcd in memory, an API server, kwok's kubelets, and no
//! other controller. Subjects alternate (A B, B A, …), and rounds in which the machine was not steady are repeated.
//! What is measured and how is in README.md beside this file; this file decides the order.

mod account;
mod binder;
mod calls;
mod churn;
mod client;
mod daemon;
mod end_state;
mod figures;
mod home;
mod kinds;
mod machine;
mod manifests;
mod minimum;
mod observer;
mod owners;
mod phases;
mod plane;
mod report;
mod run;
mod saved;
mod scale;
mod subject;
mod table;
mod world;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use self::calls::Calls;
pub use self::figures::{Figures, Phase, PhaseFigures};
use self::home::Home;
use self::kinds::PodMaker;
pub use self::machine::Steadiness;
pub use self::report::{Difference, Report, Round};
pub use self::scale::Scale;
pub use self::subject::Subject;
pub use self::table::{Bar, Row};
use crate::progress::Progress;
use crate::setup::Group;
use crate::{interrupt, process, setup};

/// For each round that was asked for, so many may be tried before an unsteady one has to do.
const TRIES: usize = 2;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who is measured.
    pub subjects: Vec<Subject>,
    /// Which kinds.
    pub kinds: Vec<Kind>,
    /// Steady rounds wanted.
    pub rounds: usize,
    /// How large.
    pub scale: Scale,
}

/// What the phases are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Deployments, ReplicaSets and ReplicationControllers, at every size.
    Replicas,
    /// Jobs.
    Jobs,
    /// DaemonSets.
    DaemonSets,
    /// StatefulSets.
    StatefulSets,
}

/// One cluster on which the subjects run one after the other.
#[derive(Clone, Copy, Debug)]
enum Course {
    Size(usize),
    Kind(PodMaker),
}

impl Options {
    fn courses(&self) -> Vec<Course> {
        let of = |kind: &Kind| match kind {
            Kind::Replicas => self.scale.pods.iter().copied().map(Course::Size).collect(),
            Kind::Jobs => vec![Course::Kind(PodMaker::Jobs)],
            Kind::DaemonSets => vec![Course::Kind(PodMaker::DaemonSets)],
            Kind::StatefulSets => vec![Course::Kind(PodMaker::StatefulSets)],
        };
        self.kinds.iter().flat_map(of).collect()
    }
}

/// Runs the workload controllers' bench. The report is also written to `target/bench/workloads.json`.
pub fn workloads(options: &Options, progress: &Progress) -> Result<Report> {
    check(options)?;
    let _alone = lock()?;
    for group in [Group::Cluster, Group::Tools] {
        setup::ensure(group, progress)?;
    }
    let manager = if options.subjects.contains(&Subject::Ours) {
        Some(progress.run("build trysail-manager for release", subject::build_manager)?)
    } else {
        None
    };
    // From here on there is something to clean; a build needs no help to be interrupted.
    interrupt::catch_signals()?;
    let home = progress.run("prepare certificates and credentials", Home::prepare)?;
    let mut done = Vec::new();
    let ended_by = rounds(options, &home, manager.as_deref(), &mut done, progress).err();
    match ended_by {
        None => publish(options, done),
        Some(error) => {
            if !error.is::<interrupt::Interrupted>() {
                keep_logs(&home, progress);
            }
            if done.is_empty() {
                return Err(error);
            }
            // An hour of finished rounds is worth reading, whatever ended the next one.
            let finished = done.len();
            progress.note(&publish(options, done)?.text());
            Err(error.context(format!("the table above is of the {finished} rounds that were finished")))
        }
    }
}

fn publish(options: &Options, rounds: Vec<Round>) -> Result<Report> {
    let report = Report::new(options, rounds)?;
    report.write(&output_dir()?.join("workloads.json"))?;
    Ok(report)
}

/// Removes what a bench left that was killed: its processes ended with it, but its directory in memory and its control
/// groups did not. A bench that is running keeps its own.
pub fn sweep() -> Result<()> {
    match lock() {
        Ok(_alone) => {
            home::sweep();
            account::sweep()
        }
        // Somebody is measuring; what lies there is theirs.
        Err(_) => Ok(()),
    }
}

/// Adds to `rounds` until enough of them are steady.
fn rounds(
    options: &Options,
    home: &Home,
    manager: Option<&Path>,
    rounds: &mut Vec<Round>,
    progress: &Progress,
) -> Result<()> {
    let steady = |rounds: &[Round]| rounds.iter().filter(|round| round.steadiness.steady()).count();
    while steady(rounds) < options.rounds && rounds.len() < options.rounds * TRIES {
        let mut order = options.subjects.clone();
        if rounds.len() % 2 == 1 {
            order.reverse();
        }
        progress.note(&format!("round {}", rounds.len() + 1));
        let round = round(options, &order, home, manager, progress)?;
        if !round.steadiness.steady() {
            progress.note(&format!(
                "the machine was not steady (fixed work varied {:.0} %, {:.0} % stolen): the round does not count",
                (round.steadiness.control_spread - 1.0) * 100.0,
                round.steadiness.steal * 100.0
            ));
        }
        rounds.push(round);
    }
    Ok(())
}

fn round(
    options: &Options,
    order: &[Subject],
    home: &Home,
    manager: Option<&Path>,
    progress: &Progress,
) -> Result<Round> {
    let mut readings = vec![machine::read()?];
    let mut figures: BTreeMap<Subject, PhaseFigures> = BTreeMap::new();
    let mut differences = BTreeMap::new();
    for course in options.courses() {
        let mut ends = BTreeMap::new();
        for subject in order {
            let (scale, who) = (&options.scale, (*subject, manager));
            let leg = match course {
                Course::Size(pods) => phases::leg(home, scale, who, pods, progress)?,
                Course::Kind(kind) => kinds::leg(home, scale, who, kind, progress)?,
            };
            readings.push(machine::read()?);
            figures.entry(*subject).or_default().extend(leg.figures);
            ends.insert(*subject, leg.ends);
        }
        if let (Some(ours), Some(theirs)) = (ends.get(&Subject::Ours), ends.get(&Subject::Kcm)) {
            for (phase, state) in ours {
                let (count, shown) =
                    theirs.get(phase).map_or((0, Vec::new()), |their| end_state::differences(state, their));
                differences.insert(*phase, Difference { count, shown });
            }
        }
    }
    Ok(Round { steadiness: Steadiness::of(&readings), figures, differences })
}

fn check(options: &Options) -> Result<()> {
    let scale = &options.scale;
    if options.subjects.is_empty() || options.rounds == 0 || options.courses().is_empty() {
        bail!("nothing to run: at least one subject, one round and one size are needed");
    }
    if let Some(pods) = scale.pods.iter().find(|pods| !pods.is_multiple_of(scale.replicas)) {
        bail!("{pods} pods are no whole number of Deployments: choose a multiple of {}", scale.replicas);
    }
    Ok(())
}

/// Two benches at once would measure each other.
fn lock() -> Result<File> {
    let dir = saved::dir()?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            bail!("another bench is running on this machine: wait for its end")
        }
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn output_dir() -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| setup::repo_root().join("target"), PathBuf::from);
    let dir = target.join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// The home goes with us; after a failure its logs are worth keeping.
fn keep_logs(home: &Home, progress: &Progress) {
    let Ok(target) = output_dir().map(|dir| dir.join("logs")) else { return };
    let _ = fs::remove_dir_all(&target);
    // The error itself is what counts; that its logs could not be copied must not hide it.
    if process::run(process::command("cp").arg("-r").arg(home.logs()).arg(&target)).is_ok() {
        progress.note(&format!("logs were kept in {}", target.display()));
    }
}
