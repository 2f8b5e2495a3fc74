//! The layer below the test images: a small Debian with the programs that upstream's tests call inside containers.
//! debootstrap makes it from the package mirror that this machine already uses.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use tar::EntryType;

use super::layer::{LayerWriter, Owner};
use crate::progress::Progress;
use crate::setup;
use crate::setup::stamp::Stamp;

/// Changes whenever this file makes something else of the same packages.
const RECIPE: &str = "1";

const SUITE: &str = "bookworm";
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

/// What tests run in their pods, besides debootstrap's minimal system.
const PACKAGES: &[&str] = &[
    "bind9-dnsutils", // dig and nslookup
    "busybox-static", // the busybox images
    "conntrack",      // privileged pods of the conntrack specs
    "curl",           // almost every network spec
    "iperf",          // the bandwidth specs
    "iproute2",       // ss
    "iptables",       // the kube-proxy specs
    "netcat-openbsd", // nc
    "nginx-light",    // the nginx images
    "procps",         // ps and sysctl
    "stress",         // the resource consumer's memory part
    "wget",           // hostexec pods
];

/// Where busybox is in the base.
pub(crate) const BUSYBOX: &str = "usr/bin/busybox";

/// Directories whose content no container needs: they would double the layer.
const LEFT_OUT: &[&str] = &[
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/lib/apt/lists",
    "var/log",
];

/// Left-out directories that nginx or a shell wants to find, and how.
const EMPTY_DIRS: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("proc", 0o755),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("var/cache", 0o755),
    ("var/log", 0o755),
    ("var/log/nginx", 0o755),
];

/// The layer on disk.
#[derive(Clone, Debug)]
pub(crate) struct BaseLayer {
    /// Hex, without the algorithm.
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) path: PathBuf,
}

/// The base layer below `images`, made now unless it is there already.
pub(crate) fn ensure(images: &Path, progress: &Progress) -> Result<BaseLayer> {
    let dir = images.join(format!("debian-{}", &key()[..16]));
    if let Some(layer) = find(&dir)? {
        return Ok(layer);
    }
    fs::create_dir_all(images).with_context(|| format!("failed to create {}", images.display()))?;
    let lock = images.join("debian.lock");
    let file = fs::File::create(&lock).with_context(|| format!("failed to create {}", lock.display()))?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| anyhow::anyhow!("failed to lock {}: {errno}", lock.display()))?;
    if find(&dir)?.is_none() {
        progress.run("debootstrap: base layer of the test images", || make(images, &dir))?;
    }
    find(&dir)?.with_context(|| format!("the base layer in {} vanished while it was used", dir.display()))
}

fn key() -> String {
    let mut stamp = Stamp::default();
    stamp.add(RECIPE, SUITE.as_bytes());
    stamp.add("packages", PACKAGES.join(" ").as_bytes());
    stamp.add("left out", LEFT_OUT.join(" ").as_bytes());
    stamp.add("empty", format!("{EMPTY_DIRS:?}").as_bytes());
    stamp.finish()
}

/// The directory is named after the recipe, the file in it after its content: what mirrors hand out changes.
fn find(dir: &Path) -> Result<Option<BaseLayer>> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(None) };
    for entry in entries {
        let entry = entry.with_context(|| format!("failed to read {}", dir.display()))?;
        let path = entry.path();
        if let Some(digest) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".tar")) {
            let size = entry.metadata().with_context(|| format!("failed to read {}", path.display()))?.len();
            return Ok(Some(BaseLayer { digest: digest.to_owned(), size, path: path.clone() }));
        }
    }
    Ok(None)
}

fn make(images: &Path, dir: &Path) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("debootstrap needs root: run as root (it writes files of other owners)");
    }
    let scratch = setup::scratch::create(images)?;
    let root = scratch.path().join("root");
    let mut command = Command::new("debootstrap");
    command
        .args(["--variant=minbase", "--merged-usr"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(SUITE)
        .arg(&root)
        .arg(mirror());
    setup::run_command(
        command,
        "debootstrap",
        "`cargo xtask setup` installs it; check that the package mirror is reachable",
    )?;

    let packed = scratch.path().join("packed");
    fs::create_dir(&packed).with_context(|| format!("failed to create {}", packed.display()))?;
    let mut writer = LayerWriter::create(&packed.join("layer"))?;
    Packer { writer: &mut writer, root: &root, seen: HashMap::new() }.directory(Path::new(""))?;
    for (path, mode) in EMPTY_DIRS {
        writer.special(EntryType::Directory, path, Owner { uid: 0, gid: 0, mode: *mode }, None)?;
    }
    let layer = writer.finish()?;
    let named = packed.join(format!("{}.tar", layer.digest));
    fs::rename(&layer.path, &named).with_context(|| format!("failed to write {}", named.display()))?;
    fs::rename(&packed, dir).with_context(|| format!("failed to move the base layer to {}", dir.display()))
}

/// Packs a root file system in the order of its names.
struct Packer<'a> {
    writer: &'a mut LayerWriter,
    root: &'a Path,
    /// Files with several names: device and inode to the first name.
    seen: HashMap<(u64, u64), PathBuf>,
}

impl Packer<'_> {
    fn directory(&mut self, relative: &Path) -> Result<()> {
        let dir = self.root.join(relative);
        let context = || format!("failed to read {}", dir.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).with_context(context)? {
            names.push(entry.with_context(context)?.file_name());
        }
        names.sort();
        for name in names {
            let path = relative.join(name);
            if !LEFT_OUT.iter().any(|left_out| path == Path::new(left_out)) {
                self.node(&path)?;
            }
        }
        Ok(())
    }

    fn node(&mut self, relative: &Path) -> Result<()> {
        let full = self.root.join(relative);
        let context = || format!("failed to read {}", full.display());
        let meta = fs::symlink_metadata(&full).with_context(context)?;
        let owner = Owner { uid: meta.uid(), gid: meta.gid(), mode: meta.mode() & 0o7777 };
        let name = relative.to_str().with_context(|| format!("{} is not UTF-8", full.display()))?;
        if meta.is_dir() {
            self.writer.special(EntryType::Directory, name, owner, None)?;
            return self.directory(relative);
        }
        if meta.is_symlink() {
            let target = fs::read_link(&full).with_context(context)?;
            // Probes and scripts of upstream's tests are written for a shell that knows `[[`; dash does not.
            let target = if name == "usr/bin/sh" { PathBuf::from("bash") } else { target };
            return self.writer.special(EntryType::Symlink, name, owner, Some(&target));
        }
        if !meta.is_file() {
            return Ok(()); // devices and sockets: containers get their own
        }
        if let Some(first) = self.other_name(relative, &meta) {
            return self.writer.special(EntryType::Link, name, owner, Some(&first));
        }
        self.writer.file(name, owner, meta.len(), fs::File::open(&full).with_context(context)?)
    }

    fn other_name(&mut self, relative: &Path, meta: &Metadata) -> Option<PathBuf> {
        if meta.nlink() < 2 {
            return None;
        }
        let known = self.seen.get(&(meta.dev(), meta.ino())).cloned();
        if known.is_none() {
            self.seen.insert((meta.dev(), meta.ino()), relative.to_owned());
        }
        known
    }
}

/// The Debian mirror that this machine's apt uses.
fn mirror() -> String {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut more: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    let texts: Vec<_> = files.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    texts.iter().find_map(|text| find_mirror(text)).unwrap_or_else(|| DEFAULT_MIRROR.to_owned())
}

/// The first Debian archive in a sources file of either format. Security and third-party archives have no base
/// system.
fn find_mirror(sources: &str) -> Option<String> {
    sources
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"))
        .map(|uri| uri.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_formats() {
        let deb822 = "Types: deb\n# http://snapshot.debian.org/archive/debian/1\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        assert_eq!(find_mirror(deb822).as_deref(), Some("http://mirror.example/debian"));
        let lines = "deb https://packages.example/apt main\ndeb [signed-by=/k] http://m.example/debian/ bookworm main\n";
        assert_eq!(find_mirror(lines).as_deref(), Some("http://m.example/debian"));
        assert_eq!(find_mirror("URIs: http://deb.debian.org/debian-security\n"), None);
    }

    /// Packing keeps owners' modes and links, leaves out what containers do not need, and makes bash the shell.
    #[test]
    fn a_root_is_packed_faithfully() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        for path in ["usr/bin", "usr/share/doc/x", "etc"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::write(root.join("usr/bin/bash"), "bash").unwrap();
        fs::hard_link(root.join("usr/bin/bash"), root.join("usr/bin/rbash")).unwrap();
        std::os::unix::fs::symlink("dash", root.join("usr/bin/sh")).unwrap();
        fs::write(root.join("usr/share/doc/x/copyright"), "long").unwrap();
        let mut writer = LayerWriter::create(&dir.path().join("out")).unwrap();
        Packer { writer: &mut writer, root: &root, seen: HashMap::new() }.directory(Path::new("")).unwrap();
        let layer = writer.finish().unwrap();

        let mut archive = tar::Archive::new(fs::File::open(layer.path).unwrap());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let link = entry.link_name().unwrap().map(|target| format!(" -> {}", target.display()));
                format!("{}{}", entry.path().unwrap().display(), link.unwrap_or_default())
            })
            .collect();
        let expected = [
            "etc",
            "usr",
            "usr/bin",
            "usr/bin/bash",
            "usr/bin/rbash -> usr/bin/bash",
            "usr/bin/sh -> bash",
            "usr/share",
        ];
        assert_eq!(entries, expected);
    }
}
