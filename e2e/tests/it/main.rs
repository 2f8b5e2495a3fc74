//! End-to-end tests on a real cluster that break something of it, or measure all of it: one at a time. `cargo xtask test` starts one and runs this program; by hand:
//! `KUBECONFIG=… TRYSAIL_CLUSTER=… cargo test -p trysail-e2e --test cluster -- --test-threads=1`.
//!
//! The API server's treatment of manifests is tested where the manifests are, in `crds/tests/it/apiserver.rs`.

mod autoscale;
mod broken;
mod chart;
mod drain;
mod faults;
mod handover;
mod kills;
mod lagging;
mod native;
mod rollout;
mod sets;
mod standstill;
mod steady;
mod walk;

use trysail_e2e::workload::{faces, in_every_face};
