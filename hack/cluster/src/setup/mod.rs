//! What a cluster is made of: Debian packages, and binaries built from the pinned Go modules in groups.
//!
//! A group is built when it is first needed and kept outside the checkout in a directory named after the content
//! that went into it, so that a second call only has to look. What is in a group is decided in [`catalog`], when
//! a build is needed in [`stamp`]; this file knows the order of the steps.

mod build;
mod catalog;
mod disk;
pub mod packages;
pub(crate) mod scratch;
pub(crate) mod stamp;
mod toolchain;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

pub(crate) use build::run as run_command;
pub use catalog::Group;
pub use toolchain::{check_go, check_rust, rust_target};

use crate::progress::Progress;

/// The folder of the pinned modules in this checkout: `hack/cluster`.
pub fn module_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The root of this checkout.
pub fn repo_root() -> PathBuf {
    module_dir().ancestors().nth(2).unwrap_or(module_dir()).to_path_buf()
}

/// Where everything that is built once is kept: `$XDG_CACHE_HOME/trysail`, else `~/.cache/trysail`.
pub fn cache_dir() -> Result<PathBuf> {
    let from_env = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    from_env("XDG_CACHE_HOME")
        .or_else(|| from_env("HOME").map(|home| home.join(".cache")))
        .map(|base| base.join("trysail"))
        .ok_or_else(|| anyhow!("no place for built binaries: set HOME or XDG_CACHE_HOME to an absolute path"))
}

/// The directory that holds (or will hold) the binaries of `group` as this checkout pins them.
pub fn bin_dir(group: Group) -> Result<PathBuf> {
    let stamp = stamp::of_group(group, module_dir())?;
    Ok(cache_dir()?.join("bin").join(format!("{}-{}", group.name(), &stamp[..16])))
}

/// Builds `group` unless it is there already, and returns the directory of its binaries.
pub fn ensure(group: Group, progress: &Progress) -> Result<PathBuf> {
    let dir = bin_dir(group)?;
    if dir.is_dir() {
        return Ok(dir);
    }
    build::build(group, &dir, progress)?;
    Ok(dir)
}

/// The path of one binary, for example `tool("kubectl")`. It never builds: see [`ensure`].
pub fn tool(name: &str) -> Result<PathBuf> {
    let Some(group) = Group::of_tool(name) else {
        bail!("no group of hack/cluster builds {name:?}: add it to setup/catalog.rs");
    };
    let path = bin_dir(group)?.join(name);
    if !path.is_file() {
        bail!("{name} is not built yet: run `cargo xtask setup --group {}`", group.name());
    }
    Ok(path)
}

/// The source folder of a pinned Go module, in Go's module cache: for files that a module ships beside its code.
pub fn module_source(module: &str) -> Result<PathBuf> {
    let output = build::go_command(module_dir())
        .args(["list", "-m", "-f", "{{.Dir}}", module])
        .output()
        .context("failed to run `go list`: is Go installed?")?;
    let dir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !output.status.success() || !dir.is_dir() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!(
            "the source of Go module {module} is not in the module cache: {reason} (run `go mod download {module}`)"
        );
    }
    Ok(dir)
}

/// The version of Kubernetes that `go.mod` pins, for example `v1.36.3`.
pub fn kubernetes_version() -> Result<String> {
    stamp::required_version(module_dir(), "k8s.io/kubernetes")
}
