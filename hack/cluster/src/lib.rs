//! A real Kubernetes on one Linux machine: nodes as sets of namespaces, real components, no registry.
//!
//! `setup` builds what a cluster needs, `image` writes container images, the rest brings clusters up and
//! takes them down again without a trace. Developers meet all of it through `cargo xtask`.

pub mod bench;
pub mod image;
pub mod progress;
pub mod setup;
pub mod upstream;

pub mod cluster;
pub mod config;
pub mod layout;

mod cleanup;
mod down;
mod ready;
mod start;
mod up;

mod node_plan;
pub mod node_spec;

mod containerd;
mod control_plane;
mod kubelet;
mod manifests;
mod native_manager;
pub mod network;
mod pki;

pub mod cgroup;
pub mod host_sysctl;
mod rootfs;

pub mod node_init;
pub mod node_launch;

mod interrupt;
pub mod process;
mod programs;
mod state;

pub use cluster::{Cluster, Node};
pub use config::ClusterConfig;
pub use down::down;
pub use up::up;
