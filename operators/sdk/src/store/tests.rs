//! Example and property: whatever happens to objects, every index says the same as a scan would.

use std::collections::BTreeMap;

use proptest::prelude::*;
use trysail_core::{Key, Meta, Object, Symbol, Uid, View, pod::Pod};

use super::{Change, Store};

fn pod(name: &str, version: u64, owner: Option<&str>, node: &str) -> Pod {
    let owners = owner.map(|uid| serde_json::json!([{"uid": uid, "controller": true}]));
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "namespace": if name < "m" { "first" } else { "second" },
            "uid": format!("{name}-{}", version / 100), "resourceVersion": version.to_string(),
            "ownerReferences": owners},
        "spec": {"nodeName": node},
    }))
    .unwrap()
}

fn names<T: Object>(objects: &[std::sync::Arc<T>]) -> Vec<String> {
    let mut names: Vec<_> = objects.iter().map(|object| object.key().name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn an_object_never_goes_back_in_time() {
    let store = Store::default();
    assert!(matches!(store.apply(pod("a", 5, None, ""), None), Change::Applied { old: None, .. }));
    for version in [4, 5] {
        assert!(matches!(store.apply(pod("a", version, Some("o"), ""), None), Change::Nothing));
    }
    let key = Key::new("first", "a");
    assert!(store.remove(&key, 4).is_none(), "a deletion from before it was created again");
    assert!(store.remove(&key, 6).is_some());
    assert!(store.is_empty());
}

#[test]
fn a_list_removes_what_it_does_not_mention() {
    let store = Store::default();
    for (n, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        store.apply(pod(name, 1 + n as u64, Some("o"), ""), None);
    }
    let listing = store.begin_list(false);
    assert!(!store.is_synced());
    store.apply(pod("a", 1, Some("o"), ""), Some(listing));
    store.apply(pod("b", 9, Some("o"), ""), Some(listing));
    store.keep(&Key::new("first", "c"));
    assert_eq!(store.len(), 4, "what is held stays readable while a list is under way");
    assert_eq!(names(&store.finish_list(listing, 10)), ["d"]);
    assert_eq!(names(&store.controlled_by(&Uid::from("o"))), ["a", "b", "c"]);
    assert_eq!((store.last_version(), store.is_synced()), (10, true));
}

#[derive(Clone, Debug)]
enum Step {
    Apply { name: usize, owner: Option<usize>, node: usize },
    Remove { name: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..8usize, proptest::option::of(0..3usize), 0..3usize)
            .prop_map(|(name, owner, node)| Step::Apply { name, owner, node }),
        1 => (0..8usize).prop_map(|name| Step::Remove { name }),
    ]
}

proptest! {
    #[test]
    fn every_index_agrees_with_a_scan(steps in proptest::collection::vec(step(), 0..60)) {
        const NAMES: [&str; 8] = ["a", "b", "c", "d", "w", "x", "y", "z"];
        const OWNERS: [&str; 3] = ["o0", "o1", "o2"];
        const NODES: [&str; 3] = ["", "n1", "n2"];
        let store = Store::default();
        store.index_by("node", |pod: &Pod| vec![pod.node.clone()]);
        let mut model: BTreeMap<&str, (Meta, Symbol)> = BTreeMap::new();
        for (version, step) in (1u64..).zip(steps) {
            match step {
                Step::Apply { name, owner, node } => {
                    let pod = pod(NAMES[name], version, owner.map(|owner| OWNERS[owner]), NODES[node]);
                    model.insert(NAMES[name], (pod.meta.clone(), pod.node.clone()));
                    store.apply(pod, None);
                }
                Step::Remove { name } => {
                    let namespace = if NAMES[name] < "m" { "first" } else { "second" };
                    let removed = store.remove(&Key::new(namespace, NAMES[name]), version);
                    prop_assert_eq!(removed.is_some(), model.remove(NAMES[name]).is_some());
                }
            }
            let expect = |wanted: &dyn Fn(&(Meta, Symbol)) -> bool| -> Vec<String> {
                model.iter().filter(|(_, held)| wanted(held)).map(|(name, _)| (*name).to_owned()).collect()
            };
            prop_assert_eq!(store.len(), model.len());
            prop_assert_eq!(names(&store.all()), expect(&|_| true));
            for owner in OWNERS {
                let owner = Uid::from(owner);
                let expected = expect(&|(meta, _)| meta.controller.as_ref() == Some(&owner));
                prop_assert_eq!(names(&store.controlled_by(&owner)), expected);
            }
            for namespace in ["first", "second"] {
                let expected = expect(&|(meta, _)| meta.key.namespace == namespace);
                prop_assert_eq!(names(&store.in_namespace(namespace)), expected);
                let expected =
                    expect(&|(meta, _)| meta.key.namespace == namespace && meta.controller.is_none());
                prop_assert_eq!(names(&store.orphans(namespace)), expected);
            }
            for node in NODES {
                prop_assert_eq!(names(&store.by_index("node", node)), expect(&|(_, held)| held == node));
            }
        }
    }
}
