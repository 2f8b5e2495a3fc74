//! The committed Rust is what the committed `.proto` files generate.

use std::{fs, path::PathBuf};

/// Nobody needs a protobuf compiler to build the driver: protox is one, in Rust, and its output is committed.
/// `UPDATE=1` rewrites.
#[test]
fn committed_code_is_current() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().unwrap();
    for proto in ["csi.proto", "pluginregistration.proto"] {
        let descriptors = protox::compile([proto], [root.join("proto")]).unwrap();
        tonic_prost_build::configure()
            .out_dir(fresh.path())
            // The transport is a unix socket of our own.
            .build_transport(false)
            .emit_rerun_if_changed(false)
            .compile_fds(descriptors)
            .unwrap();
    }
    for name in ["csi.v1.rs", "pluginregistration.rs"] {
        let code = fs::read_to_string(fresh.path().join(name)).unwrap();
        let path = root.join("src/generated").join(name);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &code).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == code, "{} is stale: run UPDATE=1 cargo test -p trysail-csi", path.display());
    }
}
