//! Controllers: from a change to a decision to its effects, one key at a time.
//!
//! Two kinds share one engine: [`Controller`] runs an async function of an operator author; [`PlanController`]
//! runs a [`Planner`](trysail_core::plan::Planner), whose decisions are values.

mod engine;
mod memory;
mod planned;
mod ready;
pub mod route;
mod typed;

pub use self::{
    engine::{DEFAULT_WORKERS, Outcome},
    planned::{PlanController, Wiring},
    typed::{Builder, Controller, Kind, Request, TypedController},
};
