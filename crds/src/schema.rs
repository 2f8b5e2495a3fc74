//! Derives the structural schemas of our CRDs from k8s-openapi's types.
//!
//! Decided here: how upstream's types become a schema that the API server accepts and that treats a manifest as the
//! native API would. The rules particular to a kind stand in that kind's file.

mod checks;
mod int_or_percent;
mod rules;
mod selector;
mod status;
mod structural;
mod template;
mod upstream;

pub(crate) use checks::DNS_LABEL;
pub(crate) use int_or_percent::{at_most_all, int_or_percent, int_or_percent_bound, is_zero};
pub(crate) use rules::{at, describe, given, insert, never_falls, rule, set_default, unchanged, validate};
pub(crate) use selector::{label_selector, label_selector_shape, selector_map, selector_matches_template};
pub(crate) use status::{CONTAINERS, Display, IMAGES, REPLICATED, SELECTING, status};
pub(crate) use structural::structural;
pub(crate) use template::{
    RestartPolicies, allow_null, forbidden_in_template, no_ephemeral_containers, pod_template,
};
