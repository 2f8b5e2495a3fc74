//! Is the Go and the Rust of this machine good enough? Asked only when something has to be compiled.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::{build::go_command, stamp};

/// Fails with what to do unless a Go is installed that is new enough for `hack/cluster/go.mod`.
pub fn check_go(module_dir: &Path) -> Result<()> {
    let wanted = stamp::go_directive(module_dir)?;
    let remedy = format!("install Go {wanted} or newer (https://go.dev/dl) and put its bin folder into PATH");
    let output = go_command(module_dir)
        .args(["env", "GOVERSION"])
        .output()
        .map_err(|error| anyhow!("Go was not found ({error}): {remedy}"))?;
    let found = String::from_utf8_lossy(&output.stdout).trim().trim_start_matches("go").to_owned();
    // With GOTOOLCHAIN=local an older Go refuses the go.mod by itself, before it prints anything.
    if !output.status.success() {
        bail!("this Go cannot read go.mod: {} ({remedy})", String::from_utf8_lossy(&output.stderr).trim());
    }
    require("Go", &found, &wanted, &remedy)
}

/// Fails with what to do unless the Rust on PATH is at least `wanted`.
pub fn check_rust(wanted: &str) -> Result<()> {
    let remedy = format!("install Rust {wanted} or newer (`rustup update stable`)");
    let found = rustc_field("release", &remedy)?;
    require("Rust", &found, wanted, &remedy)
}

/// The target that our static binaries are compiled for: this machine's own.
pub fn rust_target() -> Result<String> {
    rustc_field("host", "install Rust (https://rustup.rs)")
}

fn rustc_field(field: &str, remedy: &str) -> Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .map_err(|error| anyhow!("rustc was not found ({error}): {remedy}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(": "))
        .map(str::to_owned)
        .with_context(|| format!("`rustc -vV` says nothing of its {field}: {remedy}"))
}

fn require(what: &str, found: &str, wanted: &str, remedy: &str) -> Result<()> {
    let (have, want) = (numbers(found), numbers(wanted));
    if have.is_empty() || have < want {
        bail!("{what} {found} is too old, {wanted} is needed: {remedy}");
    }
    Ok(())
}

/// `1.26.8-X` → `[1, 26, 8]`: the leading numbers, which is all that the comparison needs.
fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map_while(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions compare as numbers, not as text, and a prerelease suffix does not confuse them.
    #[test]
    fn versions_compare_by_number() {
        let ok = |found: &str, wanted: &str| require("Go", found, wanted, "install it").is_ok();
        assert!(ok("1.26.10", "1.26.4"));
        assert!(ok("1.26.4", "1.26.4"));
        assert!(ok("1.100.0-nightly", "1.89"));
        assert!(!ok("1.26.3", "1.26.4"));
        assert!(!ok("1.9", "1.26.4"));
        assert!(!ok("", "1.26.4"));
    }

    #[test]
    fn the_error_says_what_to_do() {
        let error = require("Go", "1.22.1", "1.26.4", "install Go 1.26.4").unwrap_err().to_string();
        assert_eq!(error, "Go 1.22.1 is too old, 1.26.4 is needed: install Go 1.26.4");
    }
}
