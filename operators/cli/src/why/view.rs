//! What was read, as the decisions read it.

use std::sync::Arc;

use trysail_core::{Key, Object, Uid, View};

/// The objects of one namespace, held in memory for one answer.
#[derive(Debug)]
pub(super) struct Held<T>(Vec<Arc<T>>);

impl<T> Held<T> {
    pub(super) fn new(objects: Vec<T>) -> Self {
        Self(objects.into_iter().map(Arc::new).collect())
    }
}

impl<T: Object> Held<T> {
    fn all(&self, wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        self.0.iter().filter(|object| wanted(object)).cloned().collect()
    }
}

impl<T: Object> View<T> for Held<T> {
    fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.0.iter().find(|object| object.key() == *key).cloned()
    }

    fn controlled_by(&self, owner: &Uid) -> Vec<Arc<T>> {
        self.all(|object| object.controller().as_ref() == Some(owner))
    }

    fn orphans(&self, namespace: &str) -> Vec<Arc<T>> {
        self.all(|object| object.controller().is_none() && object.key().namespace == namespace)
    }

    fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        self.all(|object| object.key().namespace == namespace)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trysail_core::pod::Pod;

    use super::*;

    #[test]
    fn objects_are_found_by_key_owner_and_namespace() {
        let pod = |name: &str, namespace: &str, owner: Option<&str>| -> Pod {
            let owners: Vec<_> = owner.iter().map(|uid| json!({"uid": uid, "controller": true})).collect();
            serde_json::from_value(
                json!({"metadata": {"name": name, "namespace": namespace, "ownerReferences": owners}}),
            )
            .unwrap()
        };
        let pods =
            Held::new(vec![pod("a", "shop", Some("u")), pod("b", "shop", None), pod("a", "bank", None)]);
        let names = |pods: Vec<Arc<Pod>>| pods.iter().map(|pod| pod.meta.key.to_string()).collect::<Vec<_>>();
        assert_eq!(View::get(&pods, &Key::new("bank", "a")).unwrap().meta.key.to_string(), "bank/a");
        assert_eq!(names(pods.controlled_by(&Uid::from("u"))), ["shop/a"]);
        assert_eq!(names(pods.orphans("shop")), ["shop/b"]);
        assert_eq!(names(pods.in_namespace("shop")), ["shop/a", "shop/b"]);
    }
}
