//! Directories in which something is built before it is renamed to its final place: removed when the work ends, and
//! by the next run when its process was killed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

const PREFIX: &str = ".building-";

/// A new directory in `parent`, on the same file system as the final place.
pub(crate) fn create(parent: &Path) -> Result<TempDir> {
    let context = || format!("failed to create a directory in {}", parent.display());
    fs::create_dir_all(parent).with_context(context)?;
    remove_orphans(parent);
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).with_context(context)
}

/// The name says whose a directory is. Failing to tidy up is no failure of the work.
fn remove_orphans(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A killed build's directory goes, a running one's stays, and everything else too.
    #[test]
    fn only_orphans_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        // Above the kernel's largest process number, so nobody can have it.
        let orphan = dir.path().join(".building-4194305-abc");
        let other = dir.path().join("cluster-0123");
        for path in [&orphan, &other] {
            fs::create_dir(path).unwrap();
        }
        let first = create(dir.path()).unwrap();
        let second = create(dir.path()).unwrap();
        assert!(!orphan.exists() && other.exists() && first.path().exists() && second.path().exists());
    }
}
