//! `cargo xtask cluster logs`: what a component said.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use trysail_cluster::config::validate_name;
use trysail_cluster::layout::Layout;
use trysail_cluster::process::last_lines;

/// How often a followed log is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// Options of `cluster logs`.
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// NODE/COMPONENT, e.g. cp/kube-apiserver; without it, the logs there are.
    log: Option<String>,
    /// How many lines from the end.
    #[arg(long, default_value_t = 100)]
    tail: usize,
    /// Go on as the log grows.
    #[arg(long, short)]
    follow: bool,
}

/// Prints a log. Works from the files, so also for a cluster that did not come up.
pub(crate) fn run(name: &str, args: &LogsArgs) -> Result<()> {
    validate_name(name)?;
    let layout = Layout::new(name);
    let all = available(&layout);
    let Some(wanted) = &args.log else {
        if all.is_empty() {
            bail!("there are no logs of cluster {name:?}");
        }
        println!("{}", all.join("\n"));
        return Ok(());
    };
    if !all.contains(wanted) {
        bail!("there is no log {wanted:?}; there are: {}", all.join(", "));
    }
    let (node, component) = wanted.split_once('/').context("a log is named NODE/COMPONENT")?;
    print_log(&layout.log(node, component), args)
}

fn available(layout: &Layout) -> Vec<String> {
    let names = |path: &Path| -> Vec<String> {
        let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let mut all = Vec::new();
    for node in names(&layout.dir().join("logs")) {
        let files = names(&layout.logs(&node));
        all.extend(files.iter().filter_map(|file| Some(format!("{node}/{}", file.strip_suffix(".log")?))));
    }
    all.sort();
    all
}

fn print_log(path: &Path, args: &LogsArgs) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    println!("{}", last_lines(&String::from_utf8_lossy(&text), args.tail));
    if !args.follow {
        return Ok(());
    }
    loop {
        text.clear();
        // A regular file: reading at its end returns at once, and again once it has grown.
        file.read_to_end(&mut text)?;
        std::io::stdout().write_all(&text)?;
        std::thread::sleep(FOLLOW_EVERY);
    }
}
