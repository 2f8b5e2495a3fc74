//! End-to-end tests of StatefulSets, DaemonSets, Jobs and CronJobs that harm nobody else on the cluster: they mostly
//! wait, so they run side by side. `cargo xtask test` runs this program; by hand:
//! `KUBECONFIG=… TRYSAIL_CLUSTER=… cargo test -p trysail-e2e --test beside`.

mod claims;
mod cron;
mod history;
mod jobs;
mod manifests;
mod mistakes;
mod orphans;
mod spread;

use trysail_e2e::workload::in_every_face;
