//! `cargo xtask setup`: installs and builds what everything else needs.

use std::thread;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use trysail_cluster::image::{self, ImageGroup};
use trysail_cluster::progress::Progress;
use trysail_cluster::setup::{self, Group};

/// Arguments of `setup`.
#[derive(Args, Debug)]
pub(crate) struct SetupArgs {
    /// Build only this group (cluster, tools, upstream, csi) and no image; may be repeated.
    /// Without it: everything that `up` needs.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(args: &SetupArgs) -> Result<()> {
    let progress = Progress::new();
    setup::check_go(setup::module_dir())?;
    setup::packages::ensure(&progress)?;
    if args.groups.is_empty() {
        return everything(&progress);
    }
    parse(&args.groups)?.into_iter().try_for_each(|group| build(group, &progress))
}

/// Everything that `up` needs.
pub(crate) fn for_up() -> Result<()> {
    run(&SetupArgs { groups: Vec::new() })
}

/// Everything that `test` needs: the tests' own programs and images beside those of `up`.
pub(crate) fn for_tests() -> Result<()> {
    for_up()?;
    let progress = Progress::new();
    build(Group::Upstream, &progress)?;
    image::ensure_group(ImageGroup::Upstream, &progress).map(drop)
}

/// Go, debootstrap and Rust beside each other: the first two mostly wait for the network in the beginning, and a
/// linker leaves one core idle.
fn everything(progress: &Progress) -> Result<()> {
    let results = thread::scope(|scope| {
        let go = scope.spawn(|| build(Group::Cluster, progress).and_then(|()| build(Group::Tools, progress)));
        let base = scope.spawn(|| image::ensure_base(progress));
        let own = scope.spawn(|| image::ensure_group(ImageGroup::Own, progress).map(drop));
        [("the Go programs", go), ("the base layer", base), ("our own programs", own)]
            .map(|(what, job)| job.join().unwrap_or_else(|_| Err(anyhow!("the job for {what} panicked"))))
    });
    // Every job has ended by now; the first failure is the one to read.
    results.into_iter().collect::<Result<()>>()?;
    for group in [ImageGroup::Cluster, ImageGroup::Demo] {
        image::ensure_group(group, progress)?;
    }
    progress.note("ready for `cargo xtask up`");
    Ok(())
}

fn build(group: Group, progress: &Progress) -> Result<()> {
    let dir = setup::ensure(group, progress)?;
    progress.note(&format!("{}: {}", group.name(), dir.display()));
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
