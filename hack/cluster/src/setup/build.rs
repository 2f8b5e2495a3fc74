//! One group built: downloads, compiles into a directory beside the final one, and renames it at the end, so that
//! whatever goes wrong there is either the whole group or nothing.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};

use super::catalog::{Build, Group};
use super::{disk, module_dir, scratch, stamp, toolchain};
use crate::progress::Progress;

/// Upstream's own build tags. The same for every build, because a different set would compile everything again.
pub(crate) const TAGS: &str = "selinux,notest,grpcnotrace";

/// Room for a group's binaries and what Go keeps of a cold build (measured: 1 GiB and 4 GiB).
const ROOM_FOR_BINARIES: u64 = 1 << 30;
const ROOM_FOR_GO_CACHE: u64 = 5 << 30;

/// How often a download is tried: a registry's hiccup should not end a build of ten minutes.
const DOWNLOAD_ATTEMPTS: u32 = 3;

/// Lines of a failed command's output that are worth showing.
const TAIL_LINES: usize = 20;

/// Builds `group` into `dir`, which does not exist yet.
pub(crate) fn build(group: Group, dir: &Path, progress: &Progress) -> Result<()> {
    let parent = dir.parent().ok_or_else(|| anyhow!("{} has no parent directory", dir.display()))?;
    fs::create_dir_all(parent).with_context(|| format!("failed to create {}", parent.display()))?;
    let _lock = lock(&parent.join(format!("{}.lock", group.name())))?;
    if dir.is_dir() {
        return Ok(()); // another process built it while this one waited for the lock
    }
    toolchain::check_go(module_dir())?;
    check_room(parent)?;

    let scratch = scratch::create(parent)?;
    let out = scratch.path().join(group.name());
    fs::create_dir(&out).with_context(|| format!("failed to create {}", out.display()))?;
    progress.run(format!("{}: download Go modules", group.name()), || download(group))?;
    for build in group.builds() {
        let name = format!("{}: compile {}", group.name(), summary(build));
        progress.run(name, || compile(group, build, &out))?;
    }
    fs::rename(&out, dir)
        .with_context(|| format!("failed to move the built binaries to {}", dir.display()))?;
    prune(group, parent, dir);
    Ok(())
}

/// The Go tool in `dir` with the environment that every build shares: nothing may download a toolchain, and a
/// larger heap makes compiler and linker quicker.
pub(crate) fn go_command(dir: &Path) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(dir)
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOGC", "400")
        .env("GOWORK", "off")
        .env("GOFLAGS", "-trimpath -buildvcs=false");
    command
}

/// Flags of the linker. They do not invalidate compiled packages, so each group may have its own.
pub(crate) fn ldflags(group: Group, module_dir: &Path) -> Result<String> {
    let version = stamp::required_version(module_dir, "k8s.io/kubernetes")?;
    let minor = version.split('.').nth(1).unwrap_or_default().to_owned();
    // Upstream's tests skip by the server's version, and `kubectl version` should say what runs.
    let values = [
        ("gitVersion", version.as_str()),
        ("gitMajor", "1"),
        ("gitMinor", minor.as_str()),
        ("gitTreeState", "clean"),
        ("gitCommit", "0000000000000000000000000000000000000000"),
        ("buildDate", "1970-01-01T00:00:00Z"),
    ];
    let mut flags = String::from("-s -w");
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in values {
            flags.extend([" -X ", package, ".", name, "=", value]);
        }
    }
    if group == Group::Upstream {
        flags.push_str(" -X main.Version=2.63.0"); // what agnhost says of itself; no other main here has it
    }
    Ok(flags)
}

fn lock(path: &Path) -> Result<Flock<File>> {
    let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| anyhow!("failed to lock {}: {errno}", path.display()))
}

fn check_room(parent: &Path) -> Result<()> {
    disk::require_free(parent, ROOM_FOR_BINARIES, "keeping the built binaries")?;
    let output =
        go_command(module_dir()).args(["env", "GOCACHE"]).output().context("failed to run `go env`")?;
    let cache = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    // A cache that is already warm needs no more room than its own growth.
    let warm = cache.join("00").is_dir();
    disk::require_free(&cache, if warm { ROOM_FOR_BINARIES } else { ROOM_FOR_GO_CACHE }, "compiling")
}

fn download(group: Group) -> Result<()> {
    let mut modules: Vec<_> = group.builds().iter().map(module_of).collect();
    modules.dedup();
    for module in modules {
        let mut last = Ok(());
        for _ in 0..DOWNLOAD_ATTEMPTS {
            let mut command = go_command(&module_dir().join(module));
            command.args(["mod", "download"]);
            last = run(command, "go mod download", "check that the Go module proxy (GOPROXY) is reachable");
            if last.is_ok() {
                break;
            }
        }
        last?;
    }
    Ok(())
}

fn compile(group: Group, build: &Build, out: &Path) -> Result<()> {
    let mut command = go_command(&module_dir().join(module_of(build)));
    let flags = ldflags(group, module_dir())?;
    match build {
        Build::Mains { .. } => command.arg("build"),
        Build::Test { .. } => command.args(["test", "-c"]),
    };
    command.args(["-p", "2", "-tags", TAGS, "-ldflags", &flags, "-o"]);
    match build {
        Build::Mains { binaries, .. } => {
            command.arg(format!("{}/", out.display()));
            command.args(binaries.iter().map(|binary| binary.package));
        }
        Build::Test { binary } => {
            command.arg(out.join(binary.name)).arg(binary.package);
        }
    }
    run(command, &format!("compiling {}", summary(build)), "read the compiler's lines above")?;
    if let Build::Mains { binaries, .. } = build {
        for binary in *binaries {
            let (from, to) = (out.join(binary.go_output_name()), out.join(binary.name));
            fs::rename(&from, &to).with_context(|| format!("go build did not write {}", from.display()))?;
        }
    }
    Ok(())
}

/// Runs `command`; a failure names `what`, shows the last lines of its output, and says what to try.
pub(crate) fn run(mut command: Command, what: &str, remedy: &str) -> Result<()> {
    let (mut reader, writer) = std::io::pipe().context("failed to create a pipe")?;
    let errors = writer.try_clone().context("failed to create a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("failed to start {} for {what}", command.get_program().display()))?;
    drop(command); // it holds the pipe's write end, and reading would never end
    let mut output = Vec::new();
    reader.read_to_end(&mut output).with_context(|| format!("failed to read the output of {what}"))?;
    let status = child.wait().with_context(|| format!("failed to wait for {what}"))?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output);
    if disk::speaks_of_full_disk(&text) {
        bail!(
            "{what} failed because a disk is full: make room and run it again (nothing half built was kept)\n{}",
            tail(&text)
        );
    }
    bail!("{what} failed ({status}): {remedy}\n{}", tail(&text))
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn module_of(build: &Build) -> &'static str {
    match build {
        Build::Mains { module, .. } => module,
        Build::Test { .. } => ".",
    }
}

fn summary(build: &Build) -> String {
    match build.binaries() {
        [only] => only.name.to_owned(),
        [first, rest @ ..] => format!("{} and {} more", first.name, rest.len()),
        [] => String::new(),
    }
}

/// Removes the group's older directories but the newest one, which another checkout may still run from.
/// Failing to tidy up is no failure of the build.
fn prune(group: Group, parent: &Path, keep: &Path) {
    let prefix = format!("{}-", group.name());
    let Ok(entries) = fs::read_dir(parent) else { return };
    let mut old: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix) && entry.path() != keep)
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    old.sort();
    old.pop();
    for (_, path) in old {
        let _ = fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// A failure names the step, shows the end of the output (both streams) and the remedy.
    #[test]
    fn a_failed_command_explains_itself() {
        let error =
            run(shell("seq 1 30; echo broken >&2; exit 3"), "compiling x", "try y").unwrap_err().to_string();
        assert!(error.starts_with("compiling x failed (exit status: 3): try y\n"), "{error}");
        assert!(error.ends_with("\n30\nbroken") && !error.contains("\n10\n"), "{error}");
    }

    #[test]
    fn a_full_disk_is_named() {
        let error = run(shell("echo 'write: no space left on device'; exit 1"), "linking", "")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("linking failed because a disk is full"), "{error}");
    }

    /// The newest other directory stays, other groups are left alone.
    #[test]
    fn pruning_keeps_one_predecessor() {
        let dir = tempfile::tempdir().unwrap();
        for (age, name) in ["tools-1", "tools-2", "tools-3", "cluster-1"].into_iter().enumerate() {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age as u64 * 100);
            File::open(&path).unwrap().set_modified(time).unwrap();
        }
        prune(Group::Tools, dir.path(), &dir.path().join("tools-3"));
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["cluster-1", "tools-2", "tools-3"]);
    }

    /// Version stamping follows go.mod.
    #[test]
    fn linker_flags_carry_the_pinned_version() {
        let flags = ldflags(Group::Cluster, module_dir()).unwrap();
        let version = stamp::required_version(module_dir(), "k8s.io/kubernetes").unwrap();
        assert!(flags.contains(&format!("-X k8s.io/component-base/version.gitVersion={version}")), "{flags}");
        assert!(!flags.contains("main.Version"));
    }
}
