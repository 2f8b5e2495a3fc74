//! A full disk: asked about before a build, recognised after a failed one.

use std::path::Path;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

/// Fails unless the file system of `dir` has `needed` bytes free. `purpose` says for what.
pub(crate) fn require_free(dir: &Path, needed: u64, purpose: &str) -> Result<()> {
    // A path that does not exist yet is on the file system of its nearest existing ancestor.
    let Some(existing) = dir.ancestors().find(|path| path.exists()) else { return Ok(()) };
    let Ok(stat) = statvfs(existing) else { return Ok(()) };
    judge(stat.blocks_available() * stat.fragment_size(), needed, existing, purpose)
}

fn judge(free: u64, needed: u64, dir: &Path, purpose: &str) -> Result<()> {
    if free < needed {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        bail!(
            "{purpose} needs {} MiB on the file system of {}, {} MiB are free: make room, or set XDG_CACHE_HOME (and GOCACHE, GOMODCACHE) to another disk",
            mib(needed),
            dir.display(),
            mib(free)
        );
    }
    Ok(())
}

/// Whether `text`, the output of a failed command, speaks of a full disk.
pub(crate) fn speaks_of_full_disk(text: &str) -> bool {
    text.contains(Errno::ENOSPC.desc()) || text.to_lowercase().contains("no space left on device")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_an_error_with_figures() {
        let mib = 1024 * 1024;
        assert!(judge(10 * mib, 10 * mib, Path::new("/x"), "building").is_ok());
        let error = judge(3 * mib, 10 * mib, Path::new("/x"), "building").unwrap_err().to_string();
        assert!(
            error.starts_with("building needs 10 MiB on the file system of /x, 3 MiB are free"),
            "{error}"
        );
    }

    #[test]
    fn full_disks_are_recognised_in_output() {
        assert!(speaks_of_full_disk("link: write /tmp/x: no space left on device"));
        assert!(!speaks_of_full_disk("undefined: foo"));
    }
}
