//! Many at once, and many in a row.

use std::collections::HashSet;

use serde_json::json;

use crate::sandbox::{Answer, Namespace, Node, ip, run};

/// A node that was drained gets all its pods at once.
#[test]
fn two_hundred_and_fifty_pods_at_once() {
    let node = Node::new();
    let conf = node.conf();
    node.del("warm", &Namespace::new(), &conf);
    let pods: Vec<Namespace> = (0..250).map(|_| Namespace::new()).collect();
    // 25 threads start ten each: as many processes at once as a kubelet ever has, and all waiting for one store.
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = pods
            .chunks(10)
            .enumerate()
            .map(|(chunk, pods)| {
                let (node, conf) = (&node, &conf);
                scope.spawn(move || {
                    let call = |(index, pod): (usize, &Namespace)| {
                        let command = Node::command("ADD", &format!("c{}", chunk * 10 + index), &pod.path());
                        Answer::read(&node.net.run(|| run(command, conf))).ok()
                    };
                    pods.iter().enumerate().map(call).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let addresses: HashSet<String> =
        results.iter().flat_map(|result| [ip(result, 0), ip(result, 1)]).collect();
    assert_eq!(addresses.len(), 500);
    let status = node.call("STATUS", "", "", &conf);
    assert!(status.success, "{}", status.json);
    node.gc(&[], &conf).ok();
    assert_eq!(node.remains(), "");
}

/// Thousands of pods come and go on a pool of thirteen: never refused, nothing grows.
#[test]
fn churn_on_a_small_pool() {
    let node = Node::new();
    let mut conf = node.conf();
    conf["ipam"] = json!({ "ranges": [[{ "subnet": "10.1.0.0/28" }]] });
    let mut alive = std::collections::VecDeque::new();
    for round in 0..200 {
        if alive.len() == 12 {
            let (id, pod): (String, Namespace) = alive.pop_front().unwrap();
            node.del(&id, &pod, &conf);
        }
        let (id, pod) = (format!("c{round}"), Namespace::new());
        node.add(&id, &pod, &conf);
        alive.push_back((id, pod));
    }
    for (id, _pod) in alive {
        node.call("DEL", &id, "", &conf).ok();
    }
    assert_eq!(node.remains(), "");
    let size = std::fs::metadata(node.data_dir().join("store")).unwrap().len();
    assert!(size < 128 * 1024, "the store has grown to {size} bytes");
}
