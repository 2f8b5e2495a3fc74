//! Objects that every cluster starts with; the YAML is in `manifests/`.

/// Who may do what, beyond the API server's own defaults.
pub(crate) const ACCESS: &str = include_str!("../manifests/access.yaml");

/// The cluster's name server.
pub(crate) const COREDNS: &str = include_str!("../manifests/coredns.yaml");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CLUSTER_DOMAIN, COREDNS_IMAGE, DNS_ADDRESS};

    /// The image is imported, and the address given to every pod, by these names.
    #[test]
    fn coredns_is_what_the_nodes_expect() {
        for expected in [
            format!("image: {COREDNS_IMAGE}\n"),
            format!("clusterIP: {DNS_ADDRESS}\n"),
            format!("kubernetes {CLUSTER_DOMAIN} "),
        ] {
            assert!(COREDNS.contains(&expected), "{expected}");
        }
    }
}
