//! The program starts for every pod: a runtime, a client or a parser of options in its dependency tree would be paid
//! for each time.

use std::process::Command;

#[test]
fn nothing_that_starts_slowly() {
    let edges =
        ["tree", "--package", "trysail-cni", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let tree = Command::new(env!("CARGO")).args(edges).output().unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.lines().any(|line| line.starts_with("netlink-sys ")), "the tree was not read:\n{tree}");
    for banned in ["tokio ", "kube-core ", "hyper ", "clap ", "regex ", "tracing-subscriber "] {
        assert!(!tree.lines().any(|line| line.starts_with(banned)), "{banned}is in the tree:\n{tree}");
    }
}
