//! Control groups of nodes: where they are, who is in them, and what a node sees of them.
//!
//! Every node lives in `<own>/trysail.<cluster>/<node>` of every hierarchy, `<own>` being the group of whoever
//! brings the cluster up (so that its memory stays accounted there). The name is the mark by which anything left
//! behind is found again: a process of ours is in such a group from its first instruction.
//!
//! A host has either version 1 hierarchies with controllers, or version 2 alone. The version 2 branch is written
//! for such hosts and has not been run on one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The group below a cluster's that holds `up` itself and every helper it starts.
pub(crate) const HELPERS: &str = "helpers";

const PREFIX: &str = "trysail.";
const ROOT: &str = "/sys/fs/cgroup";
/// A group is busy for a moment after its last process died.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// One version 1 hierarchy of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Its controllers as the kernel lists them: `memory`, `cpu,cpuacct`, `name=systemd`.
    pub controllers: String,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Directory of our own group in it.
    pub own: PathBuf,
}

/// How this host organises control groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hierarchies {
    /// A mount per controller.
    V1(Vec<Hierarchy>),
    /// One tree.
    V2 {
        /// Where it is mounted.
        mount: PathBuf,
    },
}

impl Hierarchies {
    /// Looks at this host.
    pub fn detect() -> Result<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
        Self::parse(&groups, &mounts)
    }

    fn parse(groups: &str, mountinfo: &str) -> Result<Self> {
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
        let hierarchies: Vec<Hierarchy> =
            groups.lines().filter_map(|line| Hierarchy::parse(line, &mounts)).collect();
        if hierarchies.iter().any(|hierarchy| hierarchy.has("memory")) {
            return Ok(Self::V1(hierarchies));
        }
        match mounts.into_iter().find(|mount| mount.fstype == "cgroup2") {
            Some(mount) => Ok(Self::V2 { mount: mount.point }),
            None => bail!("no control groups found: mount cgroup2 on {ROOT}"),
        }
    }

    /// The group of a node, or of the helpers, in each hierarchy.
    pub(crate) fn group_dirs(&self, cluster: &str, member: &str) -> Vec<PathBuf> {
        let below = |dir: &Path| dir.join(format!("{PREFIX}{cluster}")).join(member);
        match self {
            Self::V1(all) => all.iter().map(|hierarchy| below(&hierarchy.own)).collect(),
            // At the root, because a group that has processes of its own cannot pass controllers on.
            Self::V2 { mount } => vec![below(mount)],
        }
    }

    /// Makes the group of a node in every hierarchy.
    pub(crate) fn create(&self, cluster: &str, member: &str) -> Result<()> {
        for dir in self.group_dirs(cluster, member) {
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        match self {
            Self::V1(all) => {
                for hierarchy in all.iter().filter(|hierarchy| hierarchy.has("cpuset")) {
                    let cluster_dir = hierarchy.own.join(format!("{PREFIX}{cluster}"));
                    inherit_cpuset(&hierarchy.own, &cluster_dir)?;
                    inherit_cpuset(&cluster_dir, &cluster_dir.join(member))?;
                }
                Ok(())
            }
            Self::V2 { mount } => delegate_controllers(&mount.join(format!("{PREFIX}{cluster}"))),
        }
    }

    /// Moves this process (and its future children) into a group.
    pub(crate) fn join(&self, cluster: &str, member: &str) -> Result<()> {
        self.group_dirs(cluster, member).iter().try_for_each(|dir| enter(dir))
    }

    /// Marks this process and its future children as belonging to the cluster, in one hierarchy only: enough to
    /// be found, while memory and CPU stay accounted where they were.
    pub(crate) fn join_helpers(&self, cluster: &str) -> Result<PathBuf> {
        let dir = match self {
            Self::V1(all) => {
                let harmless = all.iter().find(|hierarchy| hierarchy.has("pids") || hierarchy.has("freezer"));
                let hierarchy = harmless.or(all.first()).context("no version 1 hierarchy is mounted")?;
                hierarchy.own.join(format!("{PREFIX}{cluster}")).join(HELPERS)
            }
            Self::V2 { mount } => mount.join(format!("{PREFIX}{cluster}")).join(HELPERS),
        };
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        enter(&dir)?;
        Ok(dir)
    }

    /// Moves this process back to where it was when `self` was detected.
    pub(crate) fn leave_helpers(&self) {
        let dirs: Vec<&Path> = match self {
            Self::V1(all) => all.iter().map(|hierarchy| hierarchy.own.as_path()).collect(),
            Self::V2 { mount } => vec![mount],
        };
        for dir in dirs {
            // In all but one hierarchy we never left; a failure shows up as a group that cannot be removed.
            let _ = enter(dir);
        }
    }

    /// Mounts what a node sees at `target`: its own groups as roots. Runs inside the node's cgroup namespace.
    pub(crate) fn mount_in_node(&self, target: &Path) -> Result<()> {
        use nix::mount::{MsFlags, mount};
        let none: Option<&str> = None;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let Self::V1(all) = self else {
            mount(Some("cgroup2"), target, Some("cgroup2"), flags, none).context("cannot mount cgroup2")?;
            return Ok(());
        };
        mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some("mode=755")).context("cannot mount tmpfs")?;
        for hierarchy in all {
            let point = target.join(hierarchy.directory());
            fs::create_dir_all(&point)?;
            let options = match hierarchy.controllers.strip_prefix("name=") {
                Some(_) => format!("none,{}", hierarchy.controllers),
                None => hierarchy.controllers.clone(),
            };
            mount(Some("cgroup"), &point, Some("cgroup"), flags, Some(options.as_str()))
                .with_context(|| format!("cannot mount the cgroup hierarchy {}", hierarchy.controllers))?;
            for alias in hierarchy.aliases() {
                std::os::unix::fs::symlink(hierarchy.directory(), target.join(alias))?;
            }
        }
        Ok(())
    }

    /// Moves the node's init into a child group, as a service manager would: the kubelet owns the root.
    /// Runs inside the node, after the root was changed.
    pub(crate) fn enter_system_group(&self) -> Result<()> {
        let Self::V1(all) = self else {
            let leaf = Path::new(ROOT).join("sys");
            fs::create_dir_all(&leaf)?;
            enter(&leaf)?;
            return delegate_controllers(Path::new(ROOT));
        };
        for hierarchy in all {
            let root = Path::new(ROOT).join(hierarchy.directory());
            let leaf = root.join("sys");
            fs::create_dir_all(&leaf).with_context(|| format!("cannot create {}", leaf.display()))?;
            if hierarchy.has("cpuset") {
                inherit_cpuset(&root, &leaf)?;
            }
            enter(&leaf)?;
        }
        Ok(())
    }
}

impl Hierarchy {
    /// One line of /proc/self/cgroup: `4:memory:/path`. Version 2's (`0::/path`) is none.
    fn parse(line: &str, mounts: &[Mount]) -> Option<Self> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let wanted: Vec<&str> = controllers.split(',').filter(|name| !name.is_empty()).collect();
        let mount = mounts.iter().find(|mount| {
            mount.fstype == "cgroup"
                && !wanted.is_empty()
                && wanted.iter().all(|name| mount.options.split(',').any(|option| option == *name))
        })?;
        let below = path.strip_prefix(mount.root.trim_end_matches('/')).unwrap_or(path);
        let own = mount.point.join(below.trim_start_matches('/'));
        Some(Self { controllers: controllers.to_owned(), mount: mount.point.clone(), own })
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }

    /// Name of the directory in which a node mounts it: that of the host.
    fn directory(&self) -> String {
        let name = self.controllers.strip_prefix("name=").unwrap_or(&self.controllers);
        name.to_owned()
    }

    /// Joint hierarchies are also looked for under each controller's own name.
    fn aliases(&self) -> Vec<&str> {
        let names: Vec<&str> = self.controllers.split(',').collect();
        if names.len() > 1 { names } else { Vec::new() }
    }
}

#[derive(Debug)]
struct Mount {
    root: String,
    point: PathBuf,
    fstype: String,
    options: String,
}

impl Mount {
    /// `36 31 0:33 / /sys/fs/cgroup/devices rw,relatime shared:9 - cgroup cgroup rw,devices`.
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        Some(Self {
            root: (*left.get(3)?).to_owned(),
            point: PathBuf::from(left.get(4)?),
            fstype: (*right.first()?).to_owned(),
            options: (*right.get(2)?).to_owned(),
        })
    }
}

/// Every group on this host that carries the cluster's mark, whatever group `up` was started in.
pub(crate) fn find_groups(cluster: &str) -> Vec<PathBuf> {
    let Ok(mountinfo) = fs::read_to_string("/proc/self/mountinfo") else { return Vec::new() };
    let mut found = Vec::new();
    for mount in mountinfo.lines().filter_map(Mount::parse) {
        if matches!(mount.fstype.as_str(), "cgroup" | "cgroup2") {
            search(&mount.point, &format!("{PREFIX}{cluster}"), &mut found);
        }
    }
    found.sort();
    found.dedup();
    found
}

fn search(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for child in children(dir) {
        if child.file_name().is_some_and(|file| file == name) {
            found.push(child);
        } else {
            search(&child, name, found);
        }
    }
}

/// All processes in a group and below.
pub(crate) fn pids_below(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    for child in children(dir) {
        pids.extend(pids_below(&child));
    }
    pids
}

/// Removes a group and all below it; waits while the kernel still calls it busy.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    loop {
        match remove_once(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| {
                    format!("cannot remove {}: processes in it: {:?}", dir.display(), pids_below(dir))
                });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn remove_once(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_once(&child)?;
    }
    fs::remove_dir(dir)
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.flatten().filter(is_dir).map(|entry| entry.path()).collect()
}

fn enter(dir: &Path) -> Result<()> {
    let file = dir.join("cgroup.procs");
    // "0" is the writing process, whatever pid namespace it is in.
    fs::write(&file, "0").with_context(|| format!("cannot enter the cgroup {}", dir.display()))
}

/// A new cpuset group has no CPUs and refuses processes until it is given some.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = fs::read_to_string(parent.join(file))?;
        fs::write(child.join(file), value.trim())
            .with_context(|| format!("cannot set {} of {}", file, child.display()))?;
    }
    Ok(())
}

/// Version 2: lets the children of `dir` use every controller that `dir` itself has.
fn delegate_controllers(dir: &Path) -> Result<()> {
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let enable: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    fs::write(dir.join("cgroup.subtree_control"), enable.join(" "))
        .with_context(|| format!("cannot delegate controllers below {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:7 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    /// Memory of a cluster stays below the launcher's own group; a mounted v2 tree beside v1 changes nothing.
    #[test]
    fn version_one_groups_sit_below_our_own() {
        let groups = "9:name=systemd:/\n4:memory:/job/7\n2:cpu,cpuacct:/job\n0::/elsewhere\n";
        let found = Hierarchies::parse(groups, V1_MOUNTS).unwrap();
        let dirs: Vec<_> =
            found.group_dirs("dev", "w1").iter().map(|dir| dir.display().to_string()).collect();
        assert_eq!(
            dirs,
            [
                "/sys/fs/cgroup/systemd/trysail.dev/w1",
                "/sys/fs/cgroup/memory/job/7/trysail.dev/w1",
                "/sys/fs/cgroup/cpu,cpuacct/job/trysail.dev/w1",
            ]
        );
    }

    /// Inside a container the mount shows a subtree; paths are relative to what is mounted.
    #[test]
    fn a_partly_mounted_hierarchy_is_understood() {
        let mounts = "35 31 0:32 /box /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let found = Hierarchies::parse("4:memory:/box/job\n", mounts).unwrap();
        assert_eq!(
            found.group_dirs("dev", "cp"),
            [PathBuf::from("/sys/fs/cgroup/memory/job/trysail.dev/cp")]
        );
    }

    #[test]
    fn version_two_groups_sit_at_the_root() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        let found = Hierarchies::parse("0::/user.slice/session-1.scope\n", mounts).unwrap();
        assert_eq!(found.group_dirs("dev", "cp"), [PathBuf::from("/sys/fs/cgroup/trysail.dev/cp")]);
    }
}
