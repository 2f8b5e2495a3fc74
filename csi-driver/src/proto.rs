//! Generated code; `cargo xtask codegen` rewrites it from `proto/`.

#![allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]

/// The Container Storage Interface.
pub mod csi {
    include!("generated/csi.v1.rs");
}

/// Registration with the kubelet.
pub mod registration {
    include!("generated/pluginregistration.rs");
}
