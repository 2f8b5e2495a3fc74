//! A directory becomes a pool: its directories first, its marker last.

use super::{Effect, Plan};
use crate::model::record::Marker;
use crate::model::{Layout, Result, layout};

/// With a marker to write, or none if the pool has one.
pub fn init_pool(layout: &Layout, new: Option<&Marker>) -> Result<Plan> {
    let mut plan = Plan::default();
    plan.steps.extend(layout::DIRECTORIES.map(|name| Effect::MakeDir { path: layout.directory(name) }));
    if let Some(marker) = new {
        plan.commit(&layout.marker(), marker)?;
    }
    Ok(plan)
}
