//! The kernel's netlink sockets: the only place that knows the crates behind them, which change often.
//!
//! Synchronous: one request, its answers. Nothing here dumps a table for ADD or DEL, because dumps on busy nodes are
//! interrupted without end; sweeps do, and repeat.

mod attribute;
mod channel;
mod conntrack;
mod monitor;
mod netns;
mod route;
mod shape;
mod tunnel;

pub(crate) use attribute::Writer;
pub use channel::NetlinkError;
pub(crate) use channel::{
    Attributes, Channel, NETFILTER, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, is_outcome, outcome,
    push_message,
};
pub use conntrack::{Stale, UdpPort, forget_flows};
pub use monitor::Monitor;
pub use netns::Netns;
pub use route::{Link, Master, NewVeth, RouteSpec, Rtnl};
pub use shape::Shape;
pub use tunnel::{GatewayRoute, Vxlan};
