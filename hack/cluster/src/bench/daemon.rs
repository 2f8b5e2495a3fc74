//! The bench's own processes: started with a log file, looked after, and gone with their handle.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{command, last_lines};

const LOG_LINES: usize = 15;
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A process of ours. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program. It dies with us, even when we are killed: the kernel tells it through its parent-death
    /// signal. That signal is bound to the starting *thread*, so call this from one that lives to the end.
    pub(crate) fn start(name: &str, program: &Path, args: &[String], log_dir: &Path) -> Result<Self> {
        let log = log_dir.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = command("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(args)
            .stdout(file.try_clone().context("cannot share a log file")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name} through setpriv (Debian: util-linux)"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails with the end of its log once it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("cannot look at {}", self.name))? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.log_tail()),
        }
    }

    /// The end of what it wrote.
    pub(crate) fn log_tail(&self) -> String {
        last_lines(&fs::read_to_string(&self.log).unwrap_or_default(), LOG_LINES)
    }

    /// Asks it to end, so that it can finish its files; kills it when it does not.
    pub(crate) fn stop(mut self) -> Result<()> {
        let context = || format!("cannot stop {}", self.name);
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).with_context(context)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if self.child.try_wait().with_context(context)?.is_some() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill, only to reap.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Free ports of loopback, each another.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All are held until the last is known, or the kernel could give one out twice.
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port on loopback")?;
        *port = listener.local_addr().context("no free port on loopback")?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component that dies says why, instead of a later timeout.
    #[test]
    fn a_dead_process_is_reported_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c".to_owned(), "echo no such flag >&2; exit 3".to_owned()];
        let mut daemon = Daemon::start("etcd", Path::new("sh"), &args, dir.path()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let error = loop {
            match daemon.check() {
                Err(error) => break error.to_string(),
                Ok(()) => assert!(Instant::now() < deadline, "the exit was never seen"),
            }
            thread::sleep(POLL);
        };
        assert!(error.contains("etcd ended") && error.contains("no such flag"), "{error}");
    }

    #[test]
    fn dropping_the_handle_ends_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::start("sleep", Path::new("sleep"), &["60".to_owned()], dir.path()).unwrap();
        let id = crate::process::ProcessId::of(daemon.pid() as i32).unwrap();
        drop(daemon);
        assert!(!id.alive());
    }
}
