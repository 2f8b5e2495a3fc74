//! The two subjects: how each is started, and how one sees that it has nothing left to do.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::account::{Account, Memory};
use super::daemon::{Daemon, free_ports};
use super::home::{Home, User};
use super::plane::Plane;
use crate::interrupt;
use crate::setup;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// trysail-manager on the native kinds.
    Ours,
    /// kube-controller-manager with the same controllers and no others.
    Kcm,
}

/// Which controllers a subject runs: those that have something to do, so that each is weighed for its own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controllers {
    /// Deployment, ReplicaSet, ReplicationController.
    Replicas,
    /// Job and what removes finished ones.
    Jobs,
    /// DaemonSet.
    DaemonSets,
    /// StatefulSet.
    StatefulSets,
}

impl Controllers {
    /// As trysail-manager calls them.
    fn ours(self) -> &'static str {
        match self {
            Controllers::Replicas => "deployment,replicaset,replicationcontroller",
            Controllers::Jobs => "job,ttl-after-finished",
            Controllers::DaemonSets => "daemonset",
            Controllers::StatefulSets => "statefulset",
        }
    }

    /// As kube-controller-manager calls them.
    fn upstream(self) -> &'static str {
        match self {
            Controllers::Replicas => {
                "deployment-controller,replicaset-controller,replicationcontroller-controller"
            }
            Controllers::Jobs => "job-controller,ttl-after-finished-controller",
            Controllers::DaemonSets => "daemonset-controller",
            Controllers::StatefulSets => "statefulset-controller",
        }
    }
}

/// No client limits: what counts is the work, not the throttle.
const QPS: u32 = 10_000;

/// A subject is quiet once it used less than this share of a core …
const QUIET_SHARE: f64 = 0.02;
/// … in each of so many windows one after the other.
const QUIET_WINDOWS: u32 = 12;
const WINDOW: Duration = Duration::from_millis(250);
/// A subject that is busy for so long without work will always be; its figures then say so.
const QUIET_LIMIT: Duration = Duration::from_secs(120);

/// Enters the directories before `--`, then becomes the program after it: all its CPU time is in the groups.
const ENTER: &str =
    "while [ \"$1\" != -- ]; do echo 0 > \"$1/cgroup.procs\" || exit 1; shift; done; shift; exec \"$@\"";

impl Subject {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Ours => "ours",
            Subject::Kcm => "kcm",
        }
    }

    fn command_line(
        self,
        home: &Home,
        kubeconfig: &Path,
        port: u16,
        manager: Option<&Path>,
        controllers: Controllers,
    ) -> Result<Vec<String>> {
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let words = match self {
            Subject::Ours => vec![
                manager.context("trysail-manager was not built")?.display().to_string(),
                kubeconfig,
                "--api=native".to_owned(),
                format!("--controllers={}", controllers.ours()),
                "--leader-elect=false".to_owned(),
                "--skip-native-check".to_owned(),
                format!("--bind-address=127.0.0.1:{port}"),
                "--v=2".to_owned(),
            ],
            Subject::Kcm => vec![
                home.program("kube-controller-manager").display().to_string(),
                kubeconfig,
                format!("--controllers={}", controllers.upstream()),
                format!("--kube-api-qps={QPS}"),
                format!("--kube-api-burst={QPS}"),
                "--leader-elect=false".to_owned(),
                "--authentication-skip-lookup=true".to_owned(),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
                // Or it would make a key of its own at every start, which is no controller's work.
                format!("--tls-cert-file={}", home.pki().join("apiserver.crt").display()),
                format!("--tls-private-key-file={}", home.pki().join("apiserver.key").display()),
                "--v=2".to_owned(),
            ],
        };
        Ok(words)
    }
}

/// Builds our manager as it is released; returns the program.
pub(crate) fn build_manager() -> Result<PathBuf> {
    let root = setup::repo_root();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // In our own process group: Ctrl-C is for the compiler, too.
    let mut build = Command::new(cargo);
    build.args(["build", "--profile", "dist", "--package", "trysail-manager"]).current_dir(&root);
    let status = build.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("trysail-manager cannot be built ({status}): see above, or measure --subject kcm alone");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("dist/trysail-manager"))
}

/// A subject at work. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    // Before the account: a group with a process in it cannot be removed.
    daemon: Daemon,
    account: Account,
}

/// What the wait for quiet found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quiet {
    /// When the quiet began.
    pub(crate) since: Instant,
    /// False when the subject never became quiet.
    pub(crate) reached: bool,
}

impl Running {
    pub(crate) fn start(
        subject: Subject,
        home: &Home,
        plane: &Plane<'_>,
        manager: Option<&Path>,
        controllers: Controllers,
    ) -> Result<Self> {
        let [port] = free_ports()?;
        let account = Account::open()?;
        let kubeconfig = plane.kubeconfig(User::Subject)?;
        let mut args = vec!["-c".to_owned(), ENTER.to_owned(), "enter".to_owned()];
        args.extend(account.dirs().map(|dir| dir.display().to_string()));
        args.push("--".to_owned());
        args.extend(subject.command_line(home, &kubeconfig, port, manager, controllers)?);
        let daemon = Daemon::start(subject.name(), Path::new("sh"), &args, &home.logs())?;
        Ok(Self { daemon, account })
    }

    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.account.cpu()
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of(self.daemon.pid())
    }

    pub(crate) fn group_peak(&self) -> Option<u64> {
        self.account.group_peak()
    }

    pub(crate) fn check(&mut self) -> Result<()> {
        self.daemon.check()
    }

    pub(crate) fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }

    /// Waits until it has nothing left to do.
    pub(crate) fn wait_quiet(&mut self) -> Result<Quiet> {
        let deadline = Instant::now() + QUIET_LIMIT;
        let (mut before, mut at, mut since, mut windows) = (self.cpu()?, Instant::now(), Instant::now(), 0);
        while Instant::now() < deadline {
            thread::sleep(WINDOW);
            interrupt::check()?;
            self.check()?;
            let (cpu, now) = (self.cpu()?, Instant::now());
            let share = cpu.saturating_sub(before).as_secs_f64() / (now - at).as_secs_f64();
            if share >= QUIET_SHARE {
                windows = 0;
                since = now;
            } else {
                windows += 1;
            }
            (before, at) = (cpu, now);
            if windows == QUIET_WINDOWS {
                return Ok(Quiet { since, reached: true });
            }
        }
        Ok(Quiet { since: Instant::now(), reached: false })
    }
}
