//! How pods of different nodes reach each other: from the cluster's nodes to routes, neighbours and forwarding entries.
//!
//! [`desired`] is a pure function, [`delta`] compares it with what the kernel has. Whoever runs them writes nothing to
//! the API: every address that a peer must know follows from what is in the Node objects already.

mod delta;
mod desired;
mod kernel;

pub use delta::{Change, delta};
pub use desired::{
    Desired, Entry, Forwarding, Neighbour, Options, Path, Peer, Problem, Reach, Transport, desired, overhead,
    vtep_mac,
};
pub use kernel::{Tunnel, apply, ensure_tunnel, read, sync};
