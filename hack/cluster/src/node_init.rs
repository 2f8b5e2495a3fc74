//! Process 1 of a node: builds its file system, then keeps its components running.
//!
//! Decided here: when a component starts, and when it starts again. What runs, and how, stands in the node's spec.
//! A component that dies is started again after a pause that grows while it keeps dying young; a component with a
//! `.stop` mark stays down until the mark goes. Whatever loses its parent in the node is reaped here.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use crate::layout::inside;
use crate::node_launch::read_spec;
use crate::node_spec::{ComponentSpec, Condition, NodeSpec};
use crate::process::write_atomically;
use crate::rootfs;

/// How often conditions and marks are looked at, while any is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a connection attempt may take: all addresses are on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// A component that lived this long is healthy: its next death counts as the first.
const HEALTHY_AFTER: Duration = Duration::from_secs(20);
/// Pause before the first restart, doubled up to the longest while the component dies young.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What the init tells the host about a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentReport {
    /// Its process number inside the node; none while it is down.
    pub pid: Option<i32>,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended last: `exit 1`, `signal SIGKILL`.
    pub last_end: Option<String>,
}

#[derive(Debug)]
struct Component {
    spec: ComponentSpec,
    report: ComponentReport,
    started: Instant,
    /// Deaths in a row that came before [`HEALTHY_AFTER`].
    young_deaths: u32,
    /// Not before this.
    next_start: Instant,
}

/// Runs the node until it is killed.
pub fn run(spec_file: &Path) -> Result<()> {
    let spec = read_spec(spec_file)?;
    nix::unistd::sethostname(&spec.node).context("cannot set the host name")?;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot create a mount namespace")?;
    rootfs::enter(&spec)?;
    spec.hierarchies.enter_system_group()?;
    for (name, value) in &spec.sysctls {
        let file = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&file, value).with_context(|| format!("cannot set {name}"))?;
    }
    supervise(spec)
}

fn supervise(spec: NodeSpec) -> Result<()> {
    let deaths = SigSet::from(Signal::SIGCHLD);
    deaths.thread_block().context("cannot block SIGCHLD")?;
    let notifications = SignalFd::with_flags(&deaths, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("cannot wait for SIGCHLD")?;
    let now = Instant::now();
    let mut components: Vec<Component> =
        spec.components.into_iter().map(|spec| Component::new(spec, now)).collect();
    loop {
        for component in components.iter_mut().filter(|component| component.report.pid.is_none()) {
            component.start_if_due(&deaths)?;
        }
        reap(&mut components)?;
        let waiting = components.iter().any(|component| component.report.pid.is_none());
        let timeout = if waiting { PollTimeout::try_from(LOOK_EVERY)? } else { PollTimeout::NONE };
        match poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(&notifications), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the components"),
        }
        while matches!(notifications.read_signal(), Ok(Some(_))) {}
    }
}

/// Takes note of every process that ended, ours or orphaned.
fn reap(components: &mut [Component]) -> Result<()> {
    loop {
        let (pid, end) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit {code}")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("signal {signal}")),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("cannot reap processes"),
        };
        let found = components.iter_mut().find(|component| component.report.pid == Some(pid.as_raw()));
        if let Some(component) = found {
            component.ended(end);
        }
    }
}

impl Component {
    fn new(spec: ComponentSpec, now: Instant) -> Self {
        Self { spec, report: ComponentReport::default(), started: now, young_deaths: 0, next_start: now }
    }

    fn start_if_due(&mut self, blocked: &SigSet) -> Result<()> {
        let stopped = stop_mark(&self.spec.name).exists();
        if stopped || Instant::now() < self.next_start || !self.spec.after.iter().all(Condition::holds) {
            return Ok(());
        }
        if self.report.last_end.is_some() {
            self.report.restarts += 1;
        }
        self.started = Instant::now();
        // A child inherits the mask: no component may start life with SIGCHLD blocked. A death in between is not
        // lost, for the caller reaps after every round of starts.
        blocked.thread_unblock()?;
        let started = self.spawn();
        blocked.thread_block()?;
        match started {
            Ok(pid) => {
                self.report.pid = Some(pid);
                self.write_report();
            }
            Err(error) => self.ended(format!("not started: {error:#}")),
        }
        Ok(())
    }

    fn spawn(&self) -> Result<i32> {
        let path = Path::new(inside::LOGS).join(format!("{}.log", self.spec.name));
        let log = File::options().create(true).append(true).open(path).context("cannot open its log")?;
        let (program, args) = self.spec.argv.split_first().context("it has no command")?;
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", inside::BIN),
            )
            .env("HOME", "/root")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(child.id() as i32)
    }

    fn ended(&mut self, end: String) {
        let lived = self.started.elapsed();
        self.young_deaths = if lived < HEALTHY_AFTER { self.young_deaths + 1 } else { 1 };
        let pause = restart_pause(self.young_deaths);
        self.next_start = Instant::now() + pause;
        say(&format!("{} ended ({end}) after {lived:.1?}; next start in {pause:?}", self.spec.name));
        self.report.pid = None;
        self.report.last_end = Some(end);
        self.write_report();
    }

    /// A full disk must not end the node: the report is then late, nothing more.
    fn write_report(&self) {
        let path = Path::new(inside::COMPONENTS).join(format!("{}.json", self.spec.name));
        let text = serde_json::to_vec(&self.report).map_err(anyhow::Error::from);
        if let Err(error) = text.and_then(|text| write_atomically(&path, &text)) {
            say(&format!("{}: {error:#}", self.spec.name));
        }
    }
}

impl Condition {
    fn holds(&self) -> bool {
        match self {
            Self::Exists(path) => path.exists(),
            Self::Accepts(address) => address
                .parse::<SocketAddr>()
                .is_ok_and(|address| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).is_ok()),
        }
    }
}

/// Name of the file that keeps a component down.
pub(crate) fn stop_mark_name(component: &str) -> String {
    format!("{component}.stop")
}

fn stop_mark(component: &str) -> PathBuf {
    Path::new(inside::COMPONENTS).join(stop_mark_name(component))
}

fn restart_pause(young_deaths: u32) -> Duration {
    let doublings = young_deaths.saturating_sub(1).min(10);
    (RESTART_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

/// One line for the init's log.
fn say(text: &str) {
    eprintln!("{} {text}", timestamp());
}

/// Seconds since the epoch: enough to compare with the other logs, without a calendar in process 1.
fn timestamp() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("[{}.{:03}]", now.as_secs(), now.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A killed component is back within a second; one that cannot live does not spin.
    #[test]
    fn pauses_grow_to_a_limit() {
        let pauses: Vec<u128> =
            [1, 2, 3, 4, 5, 6, 40].iter().map(|deaths| restart_pause(*deaths).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
    }
}
