//! The file system of a node: the host's programs, read-only, and everything else of its own.
//!
//! Programs come from the host's /usr; /etc is the host's with a writable layer on top; /var, /opt, /tmp and the rest
//! start empty on disk. So the standard paths that Kubernetes and its tests expect exist, nothing that runs in a
//! node can leave a trace in the host's files, and deleting one directory forgets the node.
//! Only /dev is the host's own: loop devices and the like exist once per machine.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::layout::inside;
use crate::node_spec::{Bind, NodeSpec};
use crate::programs::Plugin;

/// Program directories of the host. On merged-/usr systems most of them are links.
const PROGRAMS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Directories that start empty.
const EMPTY: [&str; 20] = [
    "root",
    "home",
    "mnt",
    "media",
    "srv",
    "run",
    "proc",
    "sys",
    "dev",
    "opt/cni/bin",
    "var/cache",
    "var/log/pods",
    "var/log/containers",
    "var/lib/containerd",
    "var/lib/kubelet",
    "var/lib/cni",
    "var/lib/trysail/components",
    "etc",
    "tmp",
    "var/tmp",
];
/// What the host's /etc may hold for its own containers, which are not a node's.
const HIDDEN: [&str; 3] = ["etc/cni", "etc/containerd", "etc/kubernetes"];
/// What a node's own /etc always holds.
const OWN: [&str; 3] = ["etc/cni/net.d", "etc/containerd", "etc/kubernetes/manifests"];

/// Builds the root and makes it `/` of this process's mount namespace.
pub(crate) fn enter(spec: &NodeSpec) -> Result<()> {
    // First of all cut the ties: nothing mounted below may reach the host.
    mount_flags("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    let root = &spec.rootfs;
    for directory in EMPTY {
        create_dir(&root.join(directory))?;
    }
    bind(root, root, MsFlags::MS_BIND)?;
    for name in PROGRAMS {
        program_directory(root, name)?;
    }
    etc(root, spec)?;
    kernel_file_systems(root, spec)?;
    for path in &spec.tmpfs {
        let target = inside_root(root, path);
        create_dir(&target)?;
        file_system("tmpfs", &target, Some("mode=700"))?;
    }
    spec.binds.iter().try_for_each(|item| bind_into(root, item))?;
    for file in &spec.files {
        let path = inside_root(root, &file.path);
        write_file(&path, &file.content, file.mode)?;
    }
    for directory in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(directory), Permissions::from_mode(0o1777))?;
    }
    change_root(root)?;
    // Mounts made by pods with bidirectional propagation must show up in the node.
    mount_flags("/", MsFlags::MS_REC | MsFlags::MS_SHARED)
}

/// `/bin` and friends: a link stays a link, a directory is bound.
fn program_directory(root: &Path, name: &str) -> Result<()> {
    let (source, target) = (Path::new("/").join(name), root.join(name));
    if let Ok(link) = fs::read_link(&source) {
        return match symlink(link, &target) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("cannot create {}", target.display()))
            }
            _ => Ok(()),
        };
    }
    if !source.is_dir() {
        return Ok(());
    }
    create_dir(&target)?;
    bind(&source, &target, MsFlags::MS_BIND | MsFlags::MS_REC)?;
    read_only(&target)
}

/// The host's users, certificates and alternatives, minus what describes the host itself.
fn etc(root: &Path, spec: &NodeSpec) -> Result<()> {
    let (upper, work) = (spec.etc.join("upper"), spec.etc.join("work"));
    create_dir(&upper)?;
    create_dir(&work)?;
    let options = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    file_system("overlay", &root.join("etc"), Some(&options))?;
    for hidden in HIDDEN {
        remove_tree(&root.join(hidden))?;
    }
    for own in OWN {
        create_dir(&root.join(own))?;
    }
    // Often a link to a file of the host's resolver: replace the link, not its target.
    for (name, content) in [
        // Go and glibc fall back to 127.0.0.1, where nobody listens: a look-up fails at once.
        ("etc/resolv.conf", "# No name server: nothing outside this cluster can be reached.\n".to_owned()),
        ("etc/hostname", format!("{}\n", spec.node)),
        ("etc/hosts", format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {}\n", spec.node)),
        ("etc/machine-id", machine_id(spec)),
    ] {
        let path = root.join(name);
        let _ = fs::remove_file(&path);
        write_file(&path, &content, 0o644)?;
    }
    Ok(())
}

/// Different on every node, the same after a repair.
fn machine_id(spec: &NodeSpec) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(format!("{}/{}", spec.cluster, spec.node));
    format!("{}\n", &hex::encode(digest)[..32])
}

fn kernel_file_systems(root: &Path, spec: &NodeSpec) -> Result<()> {
    bind(Path::new("/dev"), &root.join("dev"), MsFlags::MS_BIND | MsFlags::MS_REC)?;
    create_dir(&root.join("dev/shm"))?;
    file_system("tmpfs", &root.join("dev/shm"), Some("mode=1777"))?;
    file_system("proc", &root.join("proc"), None)?;
    file_system("sysfs", &root.join("sys"), None)?;
    spec.hierarchies.mount_in_node(&root.join("sys/fs/cgroup"))?;
    if root.join("sys/fs/bpf").is_dir() {
        // Pinned objects of one node are none of another's business. Not every kernel has it.
        let _ = file_system("bpf", &root.join("sys/fs/bpf"), None);
    }
    file_system("tmpfs", &root.join("run"), Some("mode=755"))?;
    for directory in ["run/lock", "run/netns", "run/containerd"] {
        create_dir(&root.join(directory))?;
    }
    for (link, target) in [("var/run", "../run"), ("var/lock", "../run/lock")] {
        let path = root.join(link);
        if fs::read_link(&path).is_err() {
            symlink(target, &path).with_context(|| format!("cannot create {}", path.display()))?;
        }
    }
    Ok(())
}

fn bind_into(root: &Path, item: &Bind) -> Result<()> {
    let target = inside_root(root, &item.target);
    if item.source.is_dir() {
        create_dir(&target)?;
    } else if !target.exists() {
        write_file(&target, "", 0o600)?;
    }
    bind(&item.source, &target, MsFlags::MS_BIND)?;
    if item.writable { Ok(()) } else { read_only(&target) }
}

/// pivot_root onto itself: the old root ends up below the new one and is dropped with all its mounts.
fn change_root(root: &Path) -> Result<()> {
    nix::unistd::chdir(root).context("cannot enter the node's root")?;
    nix::unistd::pivot_root(".", ".").context("cannot change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot drop the host's file systems")?;
    nix::unistd::chdir("/").context("cannot enter /")
}

fn inside_root(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot empty {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn write_file(path: &Path, content: &str, mode: u32) -> Result<()> {
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn bind(source: &Path, target: &Path, flags: MsFlags) -> Result<()> {
    mount(Some(source), target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot bind {} to {}", source.display(), target.display()))
}

fn read_only(target: &Path) -> Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot make {} read-only", target.display()))
}

fn file_system(kind: &str, target: &Path, options: Option<&str>) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("cannot mount {kind} on {}", target.display()))
}

fn mount_flags(target: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot change the propagation of {target}"))
}

/// Copies the CNI plugins into the node: installers write into that directory, so it must be the node's own.
pub(crate) fn install_plugins(rootfs: &Path, plugins: &[Plugin]) -> Result<()> {
    let target = inside_root(rootfs, Path::new(inside::CNI_BIN));
    create_dir(&target)?;
    for (from, name) in plugins {
        let to = target.join(name);
        fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}
