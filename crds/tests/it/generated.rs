//! The committed YAML is what the code generates, small enough for `kubectl apply` and for a Helm release.

use std::{fs, path::PathBuf};

/// Client-side `kubectl apply` keeps the manifest in an annotation of at most 256 KiB.
const MAX_BYTES: usize = 200_000;

fn generated(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("generated").join(format!("{name}.yaml"))
}

/// A schema that differs from the committed one would reach users without review. `UPDATE=1` rewrites.
#[test]
fn committed_yaml_is_current() {
    for crd in trysail_crds::all().unwrap() {
        let yaml = trysail_crds::to_yaml(&crd).unwrap();
        let path = generated(crd.metadata.name.as_deref().unwrap());
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &yaml).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == yaml, "{} is stale: run UPDATE=1 cargo test -p trysail-crds", path.display());
        assert!(yaml.len() <= MAX_BYTES, "{} has {} bytes", path.display(), yaml.len());
    }
}

/// Reading the YAML back gives the CRD again: nothing is lost in quoting.
#[test]
fn yaml_round_trips() {
    for crd in trysail_crds::all().unwrap() {
        let yaml = trysail_crds::to_yaml(&crd).unwrap();
        let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, serde_json::to_value(&crd).unwrap());
    }
}
