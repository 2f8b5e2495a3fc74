//! Running helper commands and looking at processes through /proc.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// How much of a failing command's output its error repeats.
const ERROR_LINES: usize = 15;

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number on the host.
    pub pid: i32,
    /// Its start in clock ticks since boot.
    pub start: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        start_time(pid).map(|start| Self { pid, start })
    }

    /// Whether it is still there (a zombie is not).
    pub fn alive(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    /// Reads what [`ProcessId::write`] wrote.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Stores it for other processes to find.
    pub fn write(self, path: &Path) -> Result<()> {
        write_atomically(path, &serde_json::to_vec(&self)?)
    }
}

/// A helper command. It gets a process group of its own: Ctrl-C on the terminal is for us alone, so that a
/// clean-up is never cut in two.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.process_group(0).stdin(Stdio::null());
    command
}

/// A program that will start a session of its own (which a group's leader cannot) and so leave the terminal.
pub(crate) fn daemon(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Runs to the end and returns standard output; a failure carries the command and what it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    finish(command, &output)
}

/// Like [`run`], with `input` on standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that stops reading early says why on its own.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output =
        child.wait_with_output().with_context(|| format!("cannot wait for {}", describe(command)))?;
    finish(command, &output)
}

fn finish(command: &Command, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = last_lines(&String::from_utf8_lossy(&text), ERROR_LINES);
    bail!("{} failed ({}):\n{text}", describe(command), output.status)
}

fn describe(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let text = words.join(" ");
    match text.char_indices().nth(200) {
        Some((cut, _)) => format!("`{}…`", &text[..cut]),
        None => format!("`{text}`"),
    }
}

/// The last `count` lines of `text`.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// All process numbers on this machine.
pub(crate) fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Identity of a namespace of a process, e.g. `net` or `pid`.
pub(crate) fn namespace(pid: i32, kind: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// The number a process has in its own pid namespace, which is what a node's init knows it by.
pub(crate) fn inner_pid(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// Start time of a live process. Its name may hold spaces and parentheses, so fields count from the last `)`.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Whether this process may do `bit` (see capability.h).
pub(crate) fn has_capability(bit: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|mask| mask >> bit & 1 == 1)
}

/// Replaces a file in one step: a reader, or a crash, sees the old content or the new, never half.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = Path::new(&name);
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = fs::File::create(temporary)?;
        file.write_all(content)?;
        file.sync_data()?;
        fs::rename(temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recycled process number must not pass for the process we started.
    #[test]
    fn identity_is_more_than_the_number() {
        let me = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(me.alive());
        assert!(!ProcessId { start: me.start + 1, ..me }.alive());
    }

    /// What a failing helper said must reach the reader.
    #[test]
    fn a_failing_command_explains_itself() {
        let error =
            run(command("sh").args(["-c", "echo out; echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("out\nwhy") && error.contains("exit status: 3"), "{error}");
        let missing = run(&mut command("/no/such/program")).unwrap_err().to_string();
        assert!(missing.contains("/no/such/program"), "{missing}");
    }
}
