//! When a build is needed: a digest over everything that decides what a group's binaries are.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};

use super::build::{TAGS, ldflags};
use super::catalog::{Build, Group};

/// The digest of `group` as hex: its sources below `module_dir`, its packages, and the flags.
pub(crate) fn of_group(group: Group, module_dir: &Path) -> Result<String> {
    let mut stamp = Stamp::default();
    for source in group.sources() {
        stamp.add_path(module_dir, Path::new(source))?;
    }
    for build in group.builds() {
        let (kind, module) = match build {
            Build::Mains { module, .. } => ("main", *module),
            Build::Test { .. } => ("test", "."),
        };
        for binary in build.binaries() {
            stamp.add(&[kind, module, binary.name, binary.package].join(" "), b"");
        }
    }
    stamp.add("tags", TAGS.as_bytes());
    stamp.add("ldflags", ldflags(group, module_dir)?.as_bytes());
    Ok(stamp.finish())
}

/// The version at which `go.mod` of `module_dir` requires `module`.
pub(crate) fn required_version(module_dir: &Path, module: &str) -> Result<String> {
    let path = module_dir.join("go.mod");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    find_requirement(&text, module).ok_or_else(|| anyhow!("{} does not require {module}", path.display()))
}

/// The `go` directive of `go.mod`: the oldest Go that may build it.
pub(crate) fn go_directive(module_dir: &Path) -> Result<String> {
    let path = module_dir.join("go.mod");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("go "))
        .map(|version| version.trim().to_owned())
        .ok_or_else(|| anyhow!("{} has no `go` directive", path.display()))
}

fn find_requirement(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next()? == module).then(|| words.next().map(str::to_owned))?
    })
}

/// A digest over named contents. Lengths go in too, so that moving a byte from one part to the next shows.
#[derive(Default)]
pub(crate) struct Stamp {
    hash: Sha256,
}

impl Stamp {
    /// Adds one named content.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) {
        for part in [name.as_bytes(), content] {
            self.hash.update((part.len() as u64).to_le_bytes());
            self.hash.update(part);
        }
    }

    /// Adds the file `relative`, or every file below it in the order of their names.
    pub(crate) fn add_path(&mut self, root: &Path, relative: &Path) -> Result<()> {
        let path = root.join(relative);
        let context = || format!("failed to read {}", path.display());
        if path.is_dir() {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&path).with_context(context)? {
                names.push(entry.with_context(context)?.file_name());
            }
            names.sort();
            return names.iter().try_for_each(|name| self.add_path(root, &relative.join(name)));
        }
        let content = std::fs::read(&path).with_context(context)?;
        self.add(&relative.to_string_lossy(), &content);
        Ok(())
    }

    pub(crate) fn finish(self) -> String {
        hex::encode(self.hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        dir
    }

    const GO_MOD: &str = "module m\n\ngo 1.26.4\n\nreplace k8s.io/api => k8s.io/api v0.36.3\n\nrequire (\n\tk8s.io/kubernetes v1.36.3\n)\n";

    /// Same content, same stamp, wherever the checkout is; any change of a source or a pin shows.
    #[test]
    fn stamp_follows_content_only() {
        let files = [("go.mod", GO_MOD), ("go.sum", "s"), ("coredns/main.go", "package main")];
        let (a, b) = (module(&files), module(&files));
        let stamp = |dir: &tempfile::TempDir| of_group(Group::Cluster, dir.path()).unwrap();
        assert_eq!(stamp(&a), stamp(&b));

        std::fs::write(b.path().join("coredns/main.go"), "package main // changed").unwrap();
        assert_ne!(stamp(&a), stamp(&b), "a source changed");

        let pinned = module(&[files[0], ("go.sum", "t"), files[2]]);
        assert_ne!(stamp(&a), stamp(&pinned), "go.sum changed");
        std::fs::write(a.path().join("README"), "not a source").unwrap();
        assert_eq!(stamp(&a), stamp(&module(&files)), "a file beside the sources does not matter");
    }

    /// Groups are independent: a change of the tests' main must not rebuild the cluster.
    #[test]
    fn groups_have_stamps_of_their_own() {
        let files = [("go.mod", GO_MOD), ("go.sum", "s"), ("coredns/main.go", "x"), ("e2e/e2e_test.go", "y")];
        let dir = module(&files);
        let before = of_group(Group::Cluster, dir.path()).unwrap();
        std::fs::write(dir.path().join("e2e/e2e_test.go"), "z").unwrap();
        assert_eq!(of_group(Group::Cluster, dir.path()).unwrap(), before);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let of = |parts: &[(&str, &[u8])]| {
            let mut stamp = Stamp::default();
            for (name, content) in parts {
                stamp.add(name, content);
            }
            stamp.finish()
        };
        assert_ne!(of(&[("ab", b"c")]), of(&[("a", b"bc")]));
    }

    /// A replace line also names the module; only the requirement counts.
    #[test]
    fn versions_are_read_from_requirements() {
        assert_eq!(find_requirement(GO_MOD, "k8s.io/kubernetes").as_deref(), Some("v1.36.3"));
        assert_eq!(find_requirement(GO_MOD, "k8s.io/api"), None);
        assert_eq!(find_requirement("require a.b/c v2.0.0", "a.b/c").as_deref(), Some("v2.0.0"));
    }

    #[test]
    fn a_missing_source_is_named() {
        let dir = module(&[("go.mod", GO_MOD)]);
        let error = format!("{:#}", of_group(Group::Tools, dir.path()).unwrap_err());
        assert!(error.contains("go.sum"), "{error}");
    }
}
