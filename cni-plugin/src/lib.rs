//! The pod network of a node: a CNI plugin that does the whole chain in one process.
//!
//! A call is read ([`spec`], [`conf`]), what it needs is looked up in the [`store`], what is to be done is planned as
//! data, and carried out through one door to the kernel. Nothing is executed, no daemon is needed.

pub mod conf;
pub mod effect;
pub mod names;
pub mod netlink;
pub mod nft;
pub mod node;
pub mod overlay;
pub mod plan;
pub mod spec;
pub mod store;
pub mod verbs;
