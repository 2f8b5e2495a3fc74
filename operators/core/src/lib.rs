//! The vocabulary that every Trysail controller speaks: keys, slim object views, plans and their actions.
//!
//! Nothing here reads a clock, talks to a server or draws a random number. Decisions live in
//! `trysail-workloads`, effects in `trysail-sdk`; both meet in the types of this crate.
//!
//! Reading order: [`key`] and [`resource`] name things, [`meta`], [`pod`], [`template`] are what is read of
//! them, [`view`] is how a decision reads them, [`plan`] is what a decision returns.

pub mod claim;
pub mod condition;
pub mod int_or_percent;
pub mod intern;
pub mod json;
pub mod key;
pub mod meta;
pub mod names;
pub mod plan;
pub mod pod;
pub mod resource;
pub mod selector;
pub mod template;
pub mod view;

pub use int_or_percent::IntOrPercent;
pub use intern::{Labels, Symbol};
pub use json::Json;
pub use key::{Key, Uid};
pub use meta::{Meta, Object};
pub use plan::{Action, Plan};
pub use resource::{Face, Resource};
pub use selector::Selector;
pub use template::Template;
pub use view::View;

/// Points in time, as `metav1.Time` and `MicroTime` carry them.
pub use jiff::Timestamp;
