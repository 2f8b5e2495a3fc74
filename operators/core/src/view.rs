//! How a decision reads the cluster: through indexed, synchronous look-ups that the informers' stores offer,
//! and the simulated cluster's stale copies too.

use std::sync::Arc;

use crate::{Key, Uid};

/// A cached collection of one resource.
pub trait View<T> {
    /// The object of that key.
    fn get(&self, key: &Key) -> Option<Arc<T>>;
    /// Objects whose controlling owner is `owner`.
    fn controlled_by(&self, owner: &Uid) -> Vec<Arc<T>>;
    /// Objects of a namespace without a controlling owner.
    fn orphans(&self, namespace: &str) -> Vec<Arc<T>>;
    /// Every object of a namespace.
    fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>>;
}
