//! The plugin's own nf_tables table: masquerading, host ports, pinned source addresses.
//!
//! One table, `inet trysail-cni`, whose rules never change; pods come and go as elements of its sets and maps. Nothing
//! outside of it is touched, so kube-proxy (in either mode), firewalld and others work beside it. It is spoken to in
//! the kernel's own messages: no `nft` program, and none of its differences between versions.
//!
//! When somebody flushes the table, the next ADD finds it missing and makes it again from the store.

mod element;
mod expression;
mod socket;
mod table;

pub use element::{Element, elements_of};
pub(crate) use element::{all_elements_of, udp_ports};
pub use socket::Nft;
pub use table::TABLE;
