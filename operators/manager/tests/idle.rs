//! What a manager costs that leads and has nothing to do, as a process: its memory before the first object.
//!
//! The other half of the budget, bytes per object, is measured where objects are kept (`operators/sdk/tests/memory.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests, though clippy cannot tell"
)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The budget of the whole process, as the kernel counts it in a pod.
const RESIDENT: u64 = 15 << 20;
/// What it allocates, stacks included; code apart. The same in debug builds, whose code is several times as large.
const ANONYMOUS: u64 = 5 << 20;
const SOON: Duration = Duration::from_secs(60);

/// An API server of an empty cluster: every watch says so, and then nothing any more. The Lease is taken as it is
/// written.
async fn empty_cluster(request: Request) -> Response {
    let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    match *request.method() {
        Method::GET if watch => {
            let end = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7",
                "annotations": {"k8s.io/initial-events-end": "true"}}}});
            let end = Bytes::from(end.to_string() + "\n");
            let lines = stream::iter([Ok::<_, Infallible>(end)]).chain(stream::pending());
            Body::from_stream(lines).into_response()
        }
        Method::GET => {
            let status = json!({"kind": "Status", "code": 404, "reason": "NotFound"});
            (StatusCode::NOT_FOUND, status.to_string()).into_response()
        }
        _ => {
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            let mut object: Value = serde_json::from_slice(&body).unwrap();
            object["metadata"]["resourceVersion"] = json!("8");
            object.to_string().into_response()
        }
    }
}

struct Manager(Child);

impl Manager {
    fn start(server: SocketAddr, address: SocketAddr) -> Self {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{server}")}}],
            "users": [{"name": "test", "user": {}}],
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), kubeconfig.to_string()).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_trysail-manager"))
            .args(["--api=both", "--skip-native-check", "--leader-elect-namespace=kube-system"])
            .arg(format!("--bind-address={address}"))
            .arg("--kubeconfig")
            .arg(file.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let manager = Self(child);
        // It is read once, at the start.
        std::mem::forget(file.into_temp_path());
        manager
    }

    /// Bytes of that line of `/proc/PID/status`.
    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_with_nothing_to_do_costs_fifteen_mebibytes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, Router::new().fallback(empty_cluster)).into_future());
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let manager = Manager::start(server, address);
    let begun = Instant::now();
    // Every controller has its caches and its workers: what is allocated once is allocated.
    loop {
        let metrics = get(address, "/metrics").await.unwrap_or_default();
        let workers = metrics
            .lines()
            .filter(|line| line.starts_with("controller_runtime_max_concurrent_reconciles{"))
            .collect::<Vec<_>>();
        if workers.len() >= 6 && workers.iter().all(|line| !line.ends_with(" 0")) {
            break;
        }
        assert!(begun.elapsed() < SOON, "it does not work after {SOON:?}:\n{metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (resident, anonymous) = (manager.memory("VmRSS:"), manager.memory("RssAnon:"));
    eprintln!("{resident} B resident, {anonymous} B of them anonymous");
    assert!(anonymous <= ANONYMOUS, "{anonymous} B are allocated");
    if !cfg!(debug_assertions) {
        assert!(resident <= RESIDENT, "{resident} B are resident");
    }
}
