//! The crate holds types and data: neither a runtime nor a client may enter its dependency tree.

use std::process::Command;

#[test]
fn neither_tokio_nor_a_client() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "trysail-crds",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.lines().any(|line| line.starts_with("kube-core ")), "the tree was not read:\n{tree}");
    for banned in ["tokio ", "kube-client ", "kube-runtime ", "hyper ", "chrono "] {
        assert!(!tree.lines().any(|line| line.starts_with(banned)), "{banned}is in the tree:\n{tree}");
    }
}
