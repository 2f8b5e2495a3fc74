//! A real Kubernetes on one Linux machine: nodes as sets of namespaces, real components, no registry.
//!
//! `setup` builds what a cluster needs, `image` writes container images, the rest brings clusters up and
//! takes them down again without a trace. Developers meet all of it through `cargo xtask`.

pub mod image;
pub mod progress;
pub mod setup;
