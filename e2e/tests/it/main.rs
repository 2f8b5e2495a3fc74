//! End-to-end tests on a real cluster. `cargo xtask test` starts one and runs this program; by hand:
//! `KUBECONFIG=… TRYSAIL_CLUSTER=… cargo test -p trysail-e2e --test cluster -- --test-threads=1`.
//!
//! The API server's treatment of manifests is tested where the manifests are, in `crds/tests/it/apiserver.rs`.

mod autoscale;
mod broken;
mod chart;
mod faults;
mod lagging;
mod native;
mod rollout;
mod sets;
mod standstill;
mod steady;
mod walk;

use anyhow::{Context, Result};
use trysail_e2e::workload::Face;

/// The faces that the cluster under test is known to serve (`crd`, `native`, or both separated by a comma).
fn faces() -> Vec<Face> {
    let faces = std::env::var("TRYSAIL_E2E_FACES").unwrap_or_else(|_| "crd".to_owned());
    faces.split(',').map(|face| if face == "native" { Face::Native } else { Face::Crd }).collect()
}

/// Runs the same test for every face, side by side.
async fn in_every_face(test: impl AsyncFn(Face) -> Result<()>) -> Result<()> {
    let test = &test;
    let runs =
        faces().into_iter().map(|face| async move { test(face).await.with_context(|| format!("{face:?}")) });
    futures::future::try_join_all(runs).await.map(drop)
}
