//! The few things that are done by a program of the filesystem's authors.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use uuid::Uuid;

use crate::model::Filesystem;
use crate::model::size::SECTOR;

/// A program that takes longer hangs: mkfs of terabytes takes seconds, and fsck replays a journal.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) fn format(device: &Path, fs: Filesystem, uuid: Uuid, discard: bool) -> io::Result<()> {
    let uuid = uuid.hyphenated().to_string();
    let sector = SECTOR.to_string();
    let mut command = match fs {
        Filesystem::Xfs => {
            let mut command = Command::new("mkfs.xfs");
            command.args(["-q", "-f", "-m", &format!("uuid={uuid}"), "-s", &format!("size={sector}")]);
            command.args((!discard).then_some("-K"));
            command
        }
        Filesystem::Ext4 | Filesystem::Ext3 => {
            let mut command = Command::new(format!("mkfs.{fs}"));
            // No blocks for root alone: pods run as root, and the size is what was asked for.
            command.args(["-q", "-F", "-m", "0", "-b", &sector, "-U", &uuid]);
            command.args(["-E", if discard { "discard" } else { "nodiscard" }]);
            command
        }
        Filesystem::Btrfs => {
            let mut command = Command::new("mkfs.btrfs");
            command.args(["-q", "-f", "-U", &uuid]);
            command.args((!discard).then_some("-K"));
            command
        }
    };
    expect_success(command.arg(device))
}

/// Bits of e2fsck's exit code: 1 is "corrected", 2 is "corrected, and a mounted one would need a reboot"; from 4 on
/// something is left that only a person can judge.
pub(super) fn check(device: &Path) -> io::Result<()> {
    let (code, said) = run(Command::new("e2fsck").arg("-p").arg(device))?;
    match code {
        Some(0..=3) => Ok(()),
        _ => Err(failure("e2fsck", code, &said)),
    }
}

pub(super) fn grow(device: &Path, fs: Filesystem, mounted: Option<&Path>) -> io::Result<()> {
    let mut command = match (fs, mounted) {
        (Filesystem::Xfs, Some(at)) => {
            let mut command = Command::new("xfs_growfs");
            command.arg("-d").arg(at);
            command
        }
        (Filesystem::Btrfs, Some(at)) => {
            let mut command = Command::new("btrfs");
            command.args(["filesystem", "resize", "max"]).arg(at);
            command
        }
        (Filesystem::Ext4 | Filesystem::Ext3, mounted) => return grow_ext(device, mounted.is_some()),
        (Filesystem::Xfs | Filesystem::Btrfs, None) => {
            let text = format!("{fs} grows while it is mounted, and only then");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
    };
    expect_success(&mut command)
}

/// resize2fs insists on a full check of a filesystem that is not mounted.
fn grow_ext(device: &Path, mounted: bool) -> io::Result<()> {
    if !mounted {
        let (code, said) = run(Command::new("e2fsck").args(["-f", "-p"]).arg(device))?;
        if !matches!(code, Some(0..=3)) {
            return Err(failure("e2fsck", code, &said));
        }
    }
    let (code, said) = run(Command::new("resize2fs").arg(device))?;
    match code {
        Some(0) => Ok(()),
        _ if said.contains("Permission denied") => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, said.trim().to_owned()))
        }
        _ => Err(failure("resize2fs", code, &said)),
    }
}

fn expect_success(command: &mut Command) -> io::Result<()> {
    let (code, said) = run(command)?;
    match code {
        Some(0) => Ok(()),
        _ => Err(failure(&command.get_program().to_string_lossy(), code, &said)),
    }
}

fn failure(program: &str, code: Option<i32>, said: &str) -> io::Error {
    let how = code.map_or("was killed".to_owned(), |code| format!("ended with {code}"));
    io::Error::other(format!("{program} {how}: {}", said.trim()))
}

/// Runs to the end, in a process group of its own so that nothing of it outlives its patience.
fn run(command: &mut Command) -> io::Result<(Option<i32>, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .process_group(0)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}: is it installed?")))?;
    let mut stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        // What can be read of it is better than nothing.
        let _ = stderr.as_mut().map(|stderr| stderr.read_to_end(&mut said));
        String::from_utf8_lossy(&said).into_owned()
    });
    let status = wait(&mut child, &name)?;
    let said = reader.join().unwrap_or_default();
    Ok((status.code(), said))
}

fn wait(child: &mut Child, name: &str) -> io::Result<std::process::ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > PATIENCE {
            if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                kill_process_group(group, Signal::KILL)?;
            }
            child.wait()?;
            let text = format!("{name} did not end within {} s", PATIENCE.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
