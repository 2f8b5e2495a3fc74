//! `cargo xtask upstream sanity`: csi-sanity against our driver, on pools of its own in throw-away mount namespaces.

use anyhow::Result;
use trysail_cluster::progress::Progress;
use trysail_cluster::setup::{self, Group};

use super::stage::{cargo, run as run_command};

/// Tests that need root, loop devices and mkfs run when this is set.
pub(crate) const ROOT_TESTS: &str = "TRYSAIL_ROOT_TESTS";

/// Runs the suite for mounted and for block volumes, on XFS and btrfs pools, in as many random orders.
pub(crate) fn run(seeds: u8) -> Result<()> {
    let progress = Progress::new();
    setup::packages::ensure(&progress)?;
    setup::ensure(Group::Csi, &progress)?;
    let mut tests =
        cargo(&["test", "--package", "trysail-csi", "--test", "it", "sanity", "--", "--nocapture"]);
    // One driver at a time, as the suite wants it.
    tests.arg("--test-threads=1");
    tests.env("CSI_SANITY", setup::tool("csi-sanity")?).env("CSI_SANITY_SEEDS", seeds.to_string());
    run_command(tests)
}
