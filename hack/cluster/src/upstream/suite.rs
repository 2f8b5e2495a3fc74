//! Which specs a run consists of: read from `e2e/upstream/suites.yaml`, narrowed by the command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::Deserialize;

use crate::setup;

/// All suites, as the file has them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suites {
    /// User names of our manager.
    pub(crate) identities: Vec<String>,
    suites: BTreeMap<String, Suite>,
}

/// One suite.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suite {
    focus: String,
    #[serde(default)]
    skip: String,
    /// Ginkgo processes.
    pub(crate) procs: u32,
    #[serde(default)]
    pub(crate) exclusions: Vec<Exclusion>,
}

/// A spec that is not run, and why.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exclusion {
    pub(crate) spec: String,
    pub(crate) reason: String,
}

/// Narrows a suite to what one run is about.
#[derive(Debug)]
pub(crate) struct Selection {
    include: Vec<Regex>,
    exclude: Vec<Regex>,
    excluded: Vec<String>,
}

/// Where suites and baselines are.
pub(crate) fn dir() -> PathBuf {
    setup::repo_root().join("e2e/upstream")
}

impl Suites {
    /// Reads `suites.yaml` below `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Suites> {
        let path = dir.join("suites.yaml");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        serde_saphyr::from_str(&text).with_context(|| format!("{} is not a list of suites", path.display()))
    }

    /// The suite of that name.
    pub(crate) fn get(&self, name: &str) -> Result<&Suite> {
        let Some(suite) = self.suites.get(name) else {
            let known: Vec<_> = self.suites.keys().map(String::as_str).collect();
            bail!("there is no upstream suite {name:?}: there are {}", known.join(", "));
        };
        if let Some(bad) = suite.exclusions.iter().find(|exclusion| exclusion.reason.trim().is_empty()) {
            bail!("the exclusion of {:?} from {name} gives no reason", bad.spec);
        }
        Ok(suite)
    }
}

impl Selection {
    /// The suite's own patterns and those of the command line.
    pub(crate) fn new(suite: &Suite, focus: Option<&str>, skip: Option<&str>) -> Result<Selection> {
        let compile = |what: &str, pattern: &str| {
            Regex::new(pattern).with_context(|| format!("{what} {pattern:?} is no regular expression"))
        };
        let mut include = vec![compile("the suite's focus", &suite.focus)?];
        include.extend(focus.map(|pattern| compile("--focus", pattern)).transpose()?);
        let mut exclude = Vec::new();
        if !suite.skip.is_empty() {
            exclude.push(compile("the suite's skip", &suite.skip)?);
        }
        exclude.extend(skip.map(|pattern| compile("--skip", pattern)).transpose()?);
        let excluded = suite.exclusions.iter().map(|exclusion| exclusion.spec.clone()).collect();
        Ok(Selection { include, exclude, excluded })
    }

    /// Whether the spec called `name` belongs to the run.
    pub(crate) fn selects(&self, name: &str) -> bool {
        self.matches(name) && !self.excluded.iter().any(|excluded| excluded == name)
    }

    /// Like [`Self::selects`], but also for excluded specs.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.include.iter().all(|pattern| pattern.is_match(name))
            && !self.exclude.iter().any(|pattern| pattern.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite() -> Suite {
        let exclusions = vec![Exclusion { spec: "[sig-apps] Job c".into(), reason: "kernel".into() }];
        Suite { focus: r"^\[sig-apps\]".into(), skip: r"\[Slow\]".into(), procs: 1, exclusions }
    }

    /// The command line narrows a suite and never widens it.
    #[test]
    fn both_patterns_must_match() {
        let selection = Selection::new(&suite(), Some("Deployment|Job"), Some("scale")).unwrap();
        let selected = |name: &str| selection.selects(name);
        assert!(selected("[sig-apps] Deployment a"));
        assert!(!selected("[sig-apps] StatefulSet a"), "not in the command line's focus");
        assert!(!selected("[sig-node] Deployment a"), "not in the suite's focus");
        assert!(!selected("[sig-apps] Deployment a [Slow]"), "in the suite's skip");
        assert!(!selected("[sig-apps] Deployment scale"), "in the command line's skip");
        assert!(!selected("[sig-apps] Job c") && selection.matches("[sig-apps] Job c"), "excluded by name");
    }

    #[test]
    fn bad_patterns_are_named() {
        let error = format!("{:#}", Selection::new(&suite(), Some("("), None).unwrap_err());
        assert!(error.starts_with("--focus \"(\" is no regular expression"), "{error}");
    }

    /// The committed file is valid.
    #[test]
    fn suites_can_be_read() {
        let suites = Suites::read(&dir()).unwrap();
        assert!(suites.get("apps").is_ok());
        let error = suites.get("app").unwrap_err().to_string();
        assert!(error.contains("apps"), "{error}");
    }
}
