//! Derives the structural schemas of our CRDs from k8s-openapi's types.
//!
//! Decided here: how upstream's types become a schema that the API server accepts and that treats a manifest as the
//! native API would. The rules particular to a kind stand in that kind's file.

mod checks;
mod rules;
mod selector;
mod status;
mod structural;
mod template;
mod upstream;

pub(crate) use rules::{at, describe, insert, rule, set_default, validate};
pub(crate) use selector::{label_selector, selector_map, selector_matches_template};
pub(crate) use status::status;
pub(crate) use structural::structural;
pub(crate) use template::{forbidden_in_template, pod_template};
