//! Debian packages that the cluster needs on the machine: which, why, and how they are installed.

use std::process::Command;

use anyhow::{Result, bail};

use super::build::run;
use crate::progress::Progress;

/// A package and the reason why it is needed.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Its name in Debian.
    pub name: &'static str,
    /// What uses it.
    pub reason: &'static str,
}

const fn package(name: &'static str, reason: &'static str) -> Package {
    Package { name, reason }
}

/// Everything that the cluster takes from Debian.
pub const PACKAGES: &[Package] = &[
    package("containerd", "runs the containers of every node"),
    package("runc", "starts one container for containerd"),
    package("iproute2", "namespaces, links and routes of the nodes"),
    package("util-linux", "nsenter, unshare and mount in the nodes"),
    package("nftables", "rules of kube-proxy and of the reference network"),
    package("iptables", "rules of the reference network plugins (portmap)"),
    package("conntrack", "kube-proxy clears stale connections with it"),
    package("procps", "sysctl, in tests of the CNI plugin"),
    package("strace", "kills the CNI plugin at every system call, in its tests"),
    package("kmod", "modprobe, which kubelet and kube-proxy look for"),
    package("ca-certificates", "download of modules and packages"),
    package("debootstrap", "the base layer of the test images"),
    package("xfsprogs", "volumes and pools of the CSI driver on XFS"),
    package("btrfs-progs", "volumes and pools of the CSI driver on btrfs"),
    package("e2fsprogs", "volumes and pools of the CSI driver on ext4"),
    package("gcc", "the pause program, and the linker of Rust"),
    package("libc6-dev", "static C library for the pause program and our own binaries"),
];

/// Installs the packages that are missing, after one `apt-get update`. Does nothing when all are there.
pub fn ensure(progress: &Progress) -> Result<()> {
    let missing = missing(&dpkg_status()?);
    if missing.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("{}", not_root(&missing));
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    progress.run("apt-get update", || apt(&["update"]))?;
    progress.run(format!("apt-get install {}", names.join(" ")), || {
        let mut args = vec!["install", "--yes", "--no-install-recommends"];
        args.extend(&names);
        apt(&args)
    })
}

fn not_root(missing: &[Package]) -> String {
    let lines: Vec<_> = missing.iter().map(|p| format!("  {} ({})", p.name, p.reason)).collect();
    format!(
        "Debian packages are missing and only root may install them: run as root, or install\n{}",
        lines.join("\n")
    )
}

/// Those of [`PACKAGES`] that `status`, the answer of dpkg-query, does not show as installed.
fn missing(status: &str) -> Vec<Package> {
    let installed = |name: &str| status.lines().any(|line| line.strip_suffix(" installed") == Some(name));
    PACKAGES.iter().copied().filter(|package| !installed(package.name)).collect()
}

fn dpkg_status() -> Result<String> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\\n"])
        .args(PACKAGES.iter().map(|package| package.name))
        .output();
    match output {
        // dpkg-query fails when one package is unknown, and still prints the others.
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            let names: Vec<_> = PACKAGES.iter().map(|package| package.name).collect();
            bail!(
                "this is no Debian system (dpkg-query: {error}): install the counterparts of {}",
                names.join(", ")
            )
        }
    }
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    run(command, &format!("apt-get {}", args[0]), "check the machine's /etc/apt sources, then run it again")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Removed but configured packages count as missing; so do unknown ones, of which dpkg prints nothing.
    #[test]
    fn only_installed_packages_count() {
        let lines: Vec<_> = PACKAGES.iter().map(|p| format!("{} installed\n", p.name)).collect();
        let all = lines.concat();
        assert!(missing(&all).is_empty());
        let removed = all.replace("runc installed", "runc config-files").replace("gcc installed\n", "");
        let names: Vec<_> = missing(&removed).iter().map(|p| p.name).collect();
        assert_eq!(names, ["runc", "gcc"]);
    }

    #[test]
    fn without_root_the_reasons_are_listed() {
        let text = not_root(&PACKAGES[..1]);
        assert!(text.ends_with("containerd (runs the containers of every node)"), "{text}");
    }
}
