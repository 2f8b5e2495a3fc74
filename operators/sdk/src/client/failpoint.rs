//! A place to stand still in: for tests of what a process does that was stopped at the worst of all moments, when a
//! write has passed the fence and has not left.
//!
//! [`FILE`] names a file; while it is there, its one line says which write, `METHOD PART-OF-PATH`. The first write
//! that matches takes the file away and stops the whole process with SIGSTOP. Who sends SIGCONT lets it leave.
//!
//! Compiled with feature `failpoints` only, and never in an optimised build: nothing that is shipped can do this.

use http::Request;
use kube::client::Body;
use nix::sys::signal::{Signal, raise};

#[cfg(not(debug_assertions))]
compile_error!("feature `failpoints` is for debug builds: what is shipped must not stop itself");

/// The environment variable with the file's path.
const FILE: &str = "TRYSAIL_STOP_BETWEEN_FENCE_AND_SEND";

pub(super) fn between_fence_and_send(request: &Request<Body>) {
    let Some(file) = std::env::var_os(FILE) else { return };
    let Ok(wish) = std::fs::read_to_string(&file) else { return };
    let Some((method, part)) = wish.trim().split_once(' ') else { return };
    if request.method().as_str() != method || !request.uri().path().contains(part) {
        return;
    }
    // Whoever takes the file stops; nobody stops twice.
    if std::fs::remove_file(&file).is_ok() {
        tracing::warn!(method, path = request.uri().path(), "standing still between fence and send");
        if let Err(error) = raise(Signal::SIGSTOP) {
            tracing::error!(%error, "the process did not stop");
        }
    }
}
