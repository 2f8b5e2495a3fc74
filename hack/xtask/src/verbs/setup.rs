//! `cargo xtask setup`: installs and builds what everything else needs.

use anyhow::{Result, bail};
use clap::Args;
use trysail_cluster::progress::Progress;
use trysail_cluster::setup::{self, Group};

/// Arguments of `setup`.
#[derive(Args, Debug)]
pub(crate) struct SetupArgs {
    /// Build only this group (cluster, tools, upstream, csi); may be repeated. Without it: what `up` needs.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(args: &SetupArgs) -> Result<()> {
    let progress = Progress::new();
    setup::packages::ensure(&progress)?;
    let groups =
        if args.groups.is_empty() { vec![Group::Cluster, Group::Tools] } else { parse(&args.groups)? };
    for group in groups {
        let dir = setup::ensure(group, &progress)?;
        progress.note(&format!("{}: {}", group.name(), dir.display()));
    }
    Ok(())
}

fn parse(names: &[String]) -> Result<Vec<Group>> {
    names
        .iter()
        .map(|name| {
            let Some(group) = Group::by_name(name) else {
                let known: Vec<_> = Group::ALL.iter().map(|group| group.name()).collect();
                bail!("unknown group {name:?}: there are {}", known.join(", "));
            };
            Ok(group)
        })
        .collect()
}
