//! End-to-end tests on a real cluster. `cargo xtask test` starts one and runs this binary; by hand:
//! `KUBECONFIG=… TRYSAIL_CLUSTER=… cargo test -p trysail-e2e --test it`.

mod broken;
mod faults;
mod manifests;
mod rollout;

use trysail_e2e::workload::Face;

/// The faces that the cluster under test is known to serve (`crd`, `native`, or both separated by a comma).
fn faces() -> Vec<Face> {
    let faces = std::env::var("TRYSAIL_E2E_FACES").unwrap_or_else(|_| "crd".to_owned());
    faces.split(',').map(|face| if face == "native" { Face::Native } else { Face::Crd }).collect()
}
