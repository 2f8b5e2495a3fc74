//! Where the files of a recipe come from: finds or builds each, and knows what identifies its content without
//! reading it, so that looking whether an archive is current stays cheap.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};

use super::debian;
use super::recipe::{Base, Recipe, Source};
use crate::progress::Progress;
use crate::setup::stamp::{self, Stamp};
use crate::setup::{self, Group};

/// The oldest Rust that compiles this workspace.
const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

/// The sources of some recipes, resolved as far as their identity needs it.
#[derive(Debug)]
pub(crate) struct Sources {
    base: Option<debian::BaseLayer>,
    /// Binaries of this workspace that were compiled just now.
    compiled: BTreeMap<Source, PathBuf>,
    identities: BTreeMap<Source, String>,
}

/// What one entry puts into the layer.
#[derive(Debug)]
pub(crate) enum Content {
    Directory,
    Link(String),
    Bytes(Vec<u8>),
    File(PathBuf),
    /// Several links: path in the image and target.
    Links(Vec<(String, String)>),
}

impl Sources {
    /// Builds what `recipes` need (binaries, the base) and learns the identity of each source.
    pub(crate) fn resolve(recipes: &[&Recipe], images: &Path, progress: &Progress) -> Result<Sources> {
        let wanted: BTreeSet<Source> = recipes
            .iter()
            .flat_map(|r| r.layers.iter().copied().flatten())
            .map(|entry| entry.source)
            .collect();
        let needs_base = recipes.iter().any(|recipe| recipe.base == Base::Debian)
            || wanted.iter().any(|source| matches!(source, Source::Debian(_) | Source::BusyboxApplets(_)));
        let base = if needs_base { Some(debian::ensure(images, progress)?) } else { None };
        let mut sources = Sources { base, compiled: BTreeMap::new(), identities: BTreeMap::new() };
        for source in wanted {
            let identity = sources.prepare(source, progress)?;
            sources.identities.insert(source, identity);
        }
        Ok(sources)
    }

    /// Adds everything that decides the content to `stamp`.
    pub(crate) fn stamp(&self, stamp: &mut Stamp) {
        if let Some(base) = &self.base {
            stamp.add("base", base.digest.as_bytes());
        }
        for (source, identity) in &self.identities {
            stamp.add(&format!("{source:?}"), identity.as_bytes());
        }
    }

    /// The shared base layer; only recipes on it ask.
    pub(crate) fn base(&self) -> Result<&debian::BaseLayer> {
        self.base.as_ref().ok_or_else(|| anyhow!("the Debian base was not prepared for these images"))
    }

    /// The content of one source.
    pub(crate) fn content(&self, source: Source) -> Result<Content> {
        Ok(match source {
            Source::Directory => Content::Directory,
            Source::Link(target) => Content::Link(target.to_owned()),
            Source::Text(text) => Content::Bytes(text.as_bytes().to_vec()),
            Source::Tool(name) => Content::File(setup::tool(name)?),
            Source::Module(module, path) => Content::File(setup::module_source(module)?.join(path)),
            Source::Program(file) => Content::Bytes(compile_c(file)?),
            Source::Cargo(_, binary) => {
                let path = self.compiled.get(&source).ok_or_else(|| anyhow!("{binary} was not compiled"))?;
                Content::File(path.clone())
            }
            Source::Debian(path) => Content::Bytes(self.base_file(path)?),
            Source::DebianPlus(path, lines) => {
                let mut bytes = self.base_file(path)?;
                bytes.extend_from_slice(lines.as_bytes());
                Content::Bytes(bytes)
            }
            Source::BusyboxApplets(target) => Content::Links(self.applets(target)?),
        })
    }

    /// Makes sure that `source` can be had, and says what identifies its content.
    fn prepare(&mut self, source: Source, progress: &Progress) -> Result<String> {
        Ok(match source {
            Source::Tool(name) => {
                let group = Group::of_tool(name).ok_or_else(|| anyhow!("no group builds {name}"))?;
                setup::ensure(group, progress)?.display().to_string()
            }
            Source::Module(module, _) => stamp::required_version(setup::module_dir(), module)?,
            Source::Program(file) => {
                let path = program_source(file);
                fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?
            }
            Source::Cargo(package, binary) => {
                let path = progress
                    .run(format!("compile {binary} (static)"), || compile_rust(package, binary))
                    .with_context(|| format!("failed to build {binary}"))?;
                let bytes = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
                self.compiled.insert(source, path);
                hex::encode(Sha256::digest(&bytes))
            }
            // The recipe's own text or the digest of the base says all about these.
            Source::Directory
            | Source::Link(_)
            | Source::Text(_)
            | Source::Debian(_)
            | Source::DebianPlus(..)
            | Source::BusyboxApplets(_) => String::new(),
        })
    }

    fn base_file(&self, wanted: &str) -> Result<Vec<u8>> {
        let base = self.base()?;
        let context = || format!("failed to read {}", base.path.display());
        let mut archive = tar::Archive::new(fs::File::open(&base.path).with_context(context)?);
        for entry in archive.entries().with_context(context)? {
            let mut entry = entry.with_context(context)?;
            if entry.path().with_context(context)?.to_str() == Some(wanted) {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).with_context(context)?;
                return Ok(bytes);
            }
        }
        bail!("the Debian base has no file {wanted}")
    }

    /// Asks busybox itself which programs it is.
    fn applets(&self, target: &str) -> Result<Vec<(String, String)>> {
        let dir = tempfile::tempdir().context("failed to create a temporary directory")?;
        let program = dir.path().join("busybox");
        fs::write(&program, self.base_file(debian::BUSYBOX)?).context("failed to write busybox")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .context("failed to mark busybox executable")?;
        let output = Command::new(&program).arg("--list-full").output().context("failed to run busybox")?;
        let links = parse_applets(&String::from_utf8_lossy(&output.stdout), target);
        if links.is_empty() {
            bail!("`busybox --list-full` named no applet");
        }
        Ok(links)
    }
}

/// `usr/bin/awk` per line. The file itself is no link, and `linuxrc` would stand in the root for nothing.
fn parse_applets(list: &str, target: &str) -> Vec<(String, String)> {
    list.lines()
        .map(str::trim)
        .filter(|path| {
            !path.is_empty() && Path::new("/").join(path) != Path::new(target) && *path != "linuxrc"
        })
        .map(|path| (path.to_owned(), target.to_owned()))
        .collect()
}

fn program_source(file: &str) -> PathBuf {
    setup::module_dir().join("images").join(file)
}

fn compile_c(file: &str) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().context("failed to create a temporary directory")?;
    let out = dir.path().join("program");
    let mut command = Command::new("gcc");
    command.args(["-Os", "-static", "-s", "-Wall", "-Werror", "-o"]).arg(&out).arg(program_source(file));
    setup::run_command(
        command,
        &format!("compiling {file}"),
        "`cargo xtask setup` installs gcc and libc6-dev",
    )?;
    fs::read(&out).with_context(|| format!("failed to read the program compiled from {file}"))
}

/// Compiles a binary of this workspace so that it runs in an image, or on a node, without any library.
pub(crate) fn compile_rust(package: &str, binary: &str) -> Result<PathBuf> {
    setup::check_rust(RUST_VERSION)?;
    let target = setup::rust_target()?;
    let root = setup::repo_root();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(&root)
        // A target of its own keeps build scripts and macros, which must stay dynamic, free of these flags.
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .args(["build", "--quiet", "--release", "--package", package, "--bin", binary, "--target", &target]);
    setup::run_command(command, &format!("compiling {binary}"), "read the compiler's lines above")?;
    let target_dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target_dir.join(target).join("release").join(binary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applets_become_links_but_not_busybox_itself() {
        let links = parse_applets("bin/busybox\nbin/sh\nlinuxrc\nusr/bin/wget\n\n", "/bin/busybox");
        let paths: Vec<_> = links.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["bin/sh", "usr/bin/wget"]);
        assert!(links.iter().all(|(_, target)| target == "/bin/busybox"));
    }
}
