//! What a subject costs: CPU time of its control group, memory of its process.
//!
//! CPU comes from a group made for this one subject, so threads and children that ended are in it and nobody else
//! is. The version 2 branch is written for such hosts and has not been run on one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cgroup::{self, Hierarchies};

/// Marks the bench's groups on the host; no cluster can have such a name.
const MARK: &str = "_bench";
const SUBJECT: &str = "subject";

/// The control group of one subject; removed when dropped.
#[derive(Debug)]
pub(crate) struct Account {
    cpu: PathBuf,
    memory: Option<PathBuf>,
    version_two: bool,
}

/// Memory of a process now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident, with the pages of the program file.
    pub(crate) rss: u64,
    /// Resident without file pages.
    pub(crate) anon: u64,
    /// The most that was ever resident.
    pub(crate) peak: u64,
}

impl Account {
    /// Makes the group, after removing what an earlier, killed bench left.
    pub(crate) fn open() -> Result<Self> {
        sweep()?;
        let below = |dir: &Path| dir.join(format!("trysail.{MARK}")).join(SUBJECT);
        let account = match Hierarchies::detect()? {
            Hierarchies::V1(all) => {
                let find = |name: &str| {
                    let found =
                        all.iter().find(|hierarchy| hierarchy.controllers.split(',').any(|c| c == name));
                    found.map(|hierarchy| below(&hierarchy.own))
                };
                let cpu = find("cpuacct").context("this host mounts no cpuacct control groups")?;
                Self { cpu, memory: find("memory"), version_two: false }
            }
            // cpu.stat counts without any controller; memory.peak needs one, which may be refused.
            Hierarchies::V2 { mount } => Self { cpu: below(&mount), memory: None, version_two: true },
        };
        for dir in account.dirs() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        Ok(account)
    }

    /// The directories whose `cgroup.procs` a subject enters.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.cpu).chain(&self.memory).map(PathBuf::as_path)
    }

    /// CPU time of all that ever ran in the group.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let file = self.cpu.join(if self.version_two { "cpu.stat" } else { "cpuacct.usage" });
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        match parse_cpu(&text, self.version_two) {
            Some(time) => Ok(time),
            None => bail!("{} holds no CPU time: {text:?}", file.display()),
        }
    }

    /// The most memory the group ever used, page cache and kernel memory included.
    pub(crate) fn group_peak(&self) -> Option<u64> {
        let file = self.memory.as_ref()?.join("memory.max_usage_in_bytes");
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        for dir in self.dirs().filter_map(Path::parent) {
            // What cannot be removed now is found by its mark and removed by the next bench.
            let _ = cgroup::remove(dir);
        }
    }
}

/// Removes the groups of killed benches.
pub(crate) fn sweep() -> Result<()> {
    cgroup::find_groups(MARK).iter().try_for_each(|dir| cgroup::remove(dir))
}

fn parse_cpu(text: &str, version_two: bool) -> Option<Duration> {
    if version_two {
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        return line.trim().parse().ok().map(Duration::from_micros);
    }
    text.trim().parse().ok().map(Duration::from_nanos)
}

impl Memory {
    /// Memory of the process `pid`.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let file = format!("/proc/{pid}/status");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        Self::parse(&text).with_context(|| format!("{file} holds no memory figures: the process ended"))
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kilobytes: u64 = line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse().ok()?;
            Some(kilobytes * 1024)
        };
        Some(Self { rss: field("VmRSS")?, anon: field("RssAnon")?, peak: field("VmHWM")? })
    }
}

/// CPU time of one process without its children, to the kernel's tick.
pub(crate) fn process_cpu(pid: u32) -> Result<Duration> {
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    // Fields count from the last parenthesis: the name may hold spaces. 14 and 15 of the line are user and system.
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |parts| parts.1).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let (user, system) = (ticks(11).context("short stat line")?, ticks(12).context("short stat line")?);
    // USER_HZ has been 100 on every Linux of this century.
    Ok(Duration::from_millis((user + system) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nanoseconds on version 1, microseconds on version 2: a slip would be a factor of a thousand.
    #[test]
    fn both_versions_count_in_their_own_unit() {
        assert_eq!(parse_cpu("1500000000\n", false), Some(Duration::from_millis(1500)));
        let stat = "usage_usec 1500000\nuser_usec 1\n";
        assert_eq!(parse_cpu(stat, true), Some(Duration::from_millis(1500)));
        assert_eq!(parse_cpu("", false), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    30 kB\nVmRSS:\t    20 kB\nRssAnon:\t    10 kB\n";
        assert_eq!(Memory::parse(status), Some(Memory { rss: 20_480, anon: 10_240, peak: 30_720 }));
        assert_eq!(Memory::parse("Name:\tzombie\n"), None);
    }
}
