//! Every transcript under `tests/scenarios` replays to the letter. `UPDATE=1` rewrites them; read the diff.

use std::{fs, path::Path};

use trysail_testkit::scenario::replay;

fn check(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(folder);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no transcript in {}", folder.display());
    let mut stale = Vec::new();
    for path in paths {
        let committed = fs::read_to_string(&path).unwrap();
        let now = replay(&committed);
        assert!(!now.contains("VIOLATION"), "{}:\n{now}", path.display());
        if now != committed {
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&path, &now).unwrap();
            } else {
                stale.push(format!("{}:\n{now}", path.display()));
            }
        }
    }
    assert!(stale.is_empty(), "run with UPDATE=1 and read the diff:\n{}", stale.join("\n"));
}

#[test]
fn cronjob() {
    check("cronjob");
}

#[test]
fn deployment() {
    check("deployment");
}

#[test]
fn replicaset() {
    check("replicaset");
}

#[test]
fn daemonset() {
    check("daemonset");
}

#[test]
fn statefulset() {
    check("statefulset");
}

#[test]
fn job() {
    check("job");
}
