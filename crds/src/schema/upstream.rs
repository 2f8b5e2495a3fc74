//! Facts about upstream's types that k8s-openapi does not carry: which lists are keyed, which objects are atomic.
//!
//! Upstream's OpenAPI marks more lists as keyed than the native API enforces: two `env` entries of one name, two
//! `ports` of one number, or a repeated `imagePullSecrets` entry are accepted there. A CRD refuses duplicates in a
//! keyed list, so here only those lists are keyed whose uniqueness upstream's validation demands as well. The others
//! are atomic to server-side apply, and, as no list key is left that needs one, no field of a template has a default.

/// Lists whose items are identified by keys: type, field, keys. `ResourceRequirements.claims` is missing on purpose:
/// upstream keys it by name, yet its validation allows one claim twice with different requests.
const KEYED_LISTS: [(&str, &str, &[&str]); 8] = [
    ("io.k8s.api.core.v1.PodSpec", "containers", &["name"]),
    ("io.k8s.api.core.v1.PodSpec", "initContainers", &["name"]),
    ("io.k8s.api.core.v1.PodSpec", "volumes", &["name"]),
    ("io.k8s.api.core.v1.PodSpec", "resourceClaims", &["name"]),
    ("io.k8s.api.core.v1.PodSpec", "schedulingGates", &["name"]),
    ("io.k8s.api.core.v1.PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("io.k8s.api.core.v1.Container", "volumeMounts", &["mountPath"]),
    ("io.k8s.api.core.v1.Container", "volumeDevices", &["devicePath"]),
];

/// Lists whose items are unique, each by itself: type, field.
const SETS: [(&str, &str); 1] = [("io.k8s.api.batch.v1.PodFailurePolicyOnExitCodesRequirement", "values")];

/// Objects that server-side apply replaces as a whole.
const ATOMIC_TYPES: [&str; 11] = [
    "io.k8s.api.core.v1.ConfigMapKeySelector",
    "io.k8s.api.core.v1.FileKeySelector",
    "io.k8s.api.core.v1.LocalObjectReference",
    "io.k8s.api.core.v1.NodeSelector",
    "io.k8s.api.core.v1.NodeSelectorTerm",
    "io.k8s.api.core.v1.ObjectFieldSelector",
    "io.k8s.api.core.v1.ResourceFieldSelector",
    "io.k8s.api.core.v1.SecretKeySelector",
    "io.k8s.api.core.v1.TypedLocalObjectReference",
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
    "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference",
];

/// Maps that server-side apply replaces as a whole: type, field.
const ATOMIC_MAPS: [(&str, &str); 2] = [
    ("io.k8s.api.core.v1.PodSpec", "nodeSelector"),
    ("io.k8s.api.core.v1.ReplicationControllerSpec", "selector"),
];

/// The keys of the list `field` of `type_name`, if it is keyed.
pub(super) fn list_keys(type_name: &str, field: &str) -> Option<&'static [&'static str]> {
    KEYED_LISTS
        .iter()
        .find(|(owner, name, _)| *owner == type_name && *name == field)
        .map(|(_, _, keys)| *keys)
}

/// Whether the items of the list `field` of `type_name` are unique.
pub(super) fn is_set(type_name: &str, field: &str) -> bool {
    SETS.contains(&(type_name, field))
}

/// Whether objects of `type_name` are atomic to server-side apply.
pub(super) fn is_atomic_type(type_name: &str) -> bool {
    ATOMIC_TYPES.contains(&type_name)
}

/// Whether the map `field` of `type_name` is atomic to server-side apply.
pub(super) fn is_atomic_map(type_name: &str, field: &str) -> bool {
    ATOMIC_MAPS.contains(&(type_name, field))
}

/// Every (type, field) and type named above, for the test that none of them has gone from upstream.
#[cfg(test)]
pub(super) fn named_fields() -> impl Iterator<Item = (&'static str, &'static str)> {
    KEYED_LISTS.iter().map(|(owner, field, _)| (*owner, *field)).chain(ATOMIC_MAPS).chain(SETS)
}
