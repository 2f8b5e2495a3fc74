//! A real etcd and kube-apiserver on loopback, for tests of what only the real thing can show.
//!
//! One pair serves the whole test binary; each test takes a namespace of its own. Both die with the test
//! process, however it ends: a shell holds a pipe from it, and kills its child when the pipe closes.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::OnceCell;
use trysail_sdk::{
    client::{Client, Options},
    core::{Key, Resource},
};

pub(crate) const NAMESPACES: Resource =
    Resource { group: "", version: "v1", kind: "Namespace", plural: "namespaces" };
pub(crate) const CONFIG_MAPS: Resource =
    Resource { group: "", version: "v1", kind: "ConfigMap", plural: "configmaps" };

const ADMIN: &str = "admin-token";
/// Known to the API server, with no permission at all.
pub(crate) const NOBODY: &str = "nobody-token";

/// A running API server.
#[derive(Debug)]
pub(crate) struct ApiServer {
    port: u16,
    dir: PathBuf,
    etcd: String,
    process: Guarded,
}

/// True when the tests with a real API server are switched off, which is said aloud.
pub(crate) fn switched_off() -> bool {
    let off = std::env::var("TRYSAIL_REAL").is_ok_and(|value| value == "0");
    if off {
        eprintln!("skipped: TRYSAIL_REAL=0 switches tests with a real API server off");
    }
    off
}

/// The API server that all tests share.
pub(crate) async fn shared() -> &'static ApiServer {
    static SHARED: OnceCell<ApiServer> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            let dir = tempfile::Builder::new().prefix("trysail-sdk-").tempdir().unwrap().keep();
            let port = free_port();
            let etcd = format!("http://127.0.0.1:{port}");
            let peer = format!("http://127.0.0.1:{}", free_port());
            let data = dir.join("etcd");
            let args = [
                ("--data-dir", data.to_str().unwrap()),
                ("--listen-client-urls", &etcd),
                ("--advertise-client-urls", &etcd),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &format!("default={peer}")),
                ("--log-level", "warn"),
                ("--unsafe-no-fsync", "true"),
            ];
            // Never dropped: it ends with the process.
            std::mem::forget(Guarded::start("etcd", &args, &dir, true));
            ApiServer::start(&dir, &etcd).await
        })
        .await
}

impl ApiServer {
    /// A second API server over the same storage, with caches that begin now.
    pub(crate) async fn sibling(&self) -> ApiServer {
        ApiServer::start(&self.dir, &self.etcd).await
    }

    async fn start(dir: &Path, etcd: &str) -> Self {
        let port = free_port();
        let dir = dir.join(format!("apiserver-{port}"));
        fs::create_dir_all(&dir).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(dir.join("sa.key"), key.serialize_pem()).unwrap();
        fs::write(dir.join("sa.pub"), key.public_key_pem()).unwrap();
        let tokens = format!("{ADMIN},admin,1,system:masters\n{NOBODY},nobody,2,\n");
        fs::write(dir.join("tokens.csv"), tokens).unwrap();
        let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let args = [
            ("--etcd-servers", etcd.to_owned()),
            ("--bind-address", "127.0.0.1".to_owned()),
            ("--secure-port", port.to_string()),
            ("--cert-dir", file("")),
            ("--token-auth-file", file("tokens.csv")),
            ("--authorization-mode", "RBAC".to_owned()),
            ("--service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("--service-account-signing-key-file", file("sa.key")),
            ("--service-account-key-file", file("sa.pub")),
            ("--service-cluster-ip-range", "10.0.0.0/24".to_owned()),
            // There is nobody to make service accounts.
            ("--disable-admission-plugins", "ServiceAccount".to_owned()),
            ("--endpoint-reconciler-type", "none".to_owned()),
        ];
        let args: Vec<_> = args.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let process = Guarded::start("kube-apiserver", &args, &dir, false);
        let server = ApiServer { port, dir, etcd: etcd.to_owned(), process };
        server.wait_ready().await;
        server
    }

    async fn wait_ready(&self) {
        let client = self.client();
        let begun = Instant::now();
        let kube_system = Key::new("", "kube-system");
        while client.get_meta(&NAMESPACES, &kube_system).await.is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "kube-apiserver does not answer; the end of its log:\n{}",
                self.process.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A client with every permission.
    pub(crate) fn client(&self) -> Client {
        self.client_of(ADMIN, Options::default())
    }

    /// A client that identifies itself with that token.
    pub(crate) fn client_of(&self, token: &str, options: Options) -> Client {
        Client::new(&self.config_of(token), options).unwrap()
    }

    /// How to reach it with that token.
    fn config_of(&self, token: &str) -> kube::Config {
        let mut config = kube::Config::new(format!("https://127.0.0.1:{}", self.port).parse().unwrap());
        // The certificate is made by the server itself, into a folder of this test.
        config.accept_invalid_certs = true;
        config.auth_info.token = Some(token.to_owned().into());
        config
    }

    /// A kubeconfig with every permission, for other programs.
    pub(crate) fn kubeconfig(&self) -> String {
        let server = format!("https://127.0.0.1:{}", self.port);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "test", "user": {"token": ADMIN}}],
        })
        .to_string()
    }

    /// A kube-controller-manager that runs these controllers only, for as long as the result lives.
    pub(crate) fn controller_manager(&self, controllers: &str) -> impl Drop + use<> {
        let dir = self.dir.join("controller-manager");
        fs::create_dir_all(&dir).unwrap();
        let kubeconfig = dir.join("kubeconfig");
        fs::write(&kubeconfig, self.kubeconfig()).unwrap();
        let args = [
            ("--controllers", controllers),
            ("--kubeconfig", kubeconfig.to_str().unwrap()),
            ("--leader-elect", "false"),
            ("--secure-port", "0"),
        ];
        Guarded::start("kube-controller-manager", &args, &dir, false)
    }

    /// A namespace that no other test uses.
    pub(crate) async fn namespace(&self) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.client().create(&NAMESPACES, "", &body).await.unwrap();
        name
    }
}

/// A pod that no kubelet will ever run.
pub(crate) fn pod(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]},
    })
}

/// A ConfigMap.
pub(crate) fn config_map(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}})
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Where the binaries are: `TRYSAIL_BIN_DIR`, or what `cargo xtask setup` has built.
fn binary(name: &str) -> PathBuf {
    if let Some(dir) = std::env::var_os("TRYSAIL_BIN_DIR") {
        let path = PathBuf::from(dir).join(name);
        assert!(path.exists(), "{} does not exist, though TRYSAIL_BIN_DIR says so", path.display());
        return path;
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let groups = cache.map(|cache| cache.join("trysail/bin")).into_iter().flat_map(fs::read_dir);
    let groups = groups.flatten().flatten().map(|group| group.path().join(name));
    let newest = groups.filter(|path| path.exists()).max_by_key(|path| {
        path.metadata().and_then(|metadata| metadata.modified()).unwrap_or(std::time::UNIX_EPOCH)
    });
    newest.unwrap_or_else(|| {
        panic!(
            "{name} is not built: run `cargo xtask setup`, or set TRYSAIL_BIN_DIR, or TRYSAIL_REAL=0 to skip"
        )
    })
}

/// A process that does not outlive this one.
#[derive(Debug)]
struct Guarded {
    shell: Child,
    log: PathBuf,
}

impl Guarded {
    fn start(name: &str, args: &[(&str, &str)], dir: &Path, owns_dir: bool) -> Self {
        let log = dir.join(format!("{name}.log"));
        let output = fs::File::create(&log).unwrap();
        let script = r#"dir=$1; shift
            "$@" </dev/null & pid=$!
            cat >/dev/null
            kill -9 $pid; wait $pid
            if [ -n "$dir" ]; then rm -rf "$dir"; fi"#;
        let shell = Command::new("sh")
            .args(["-c", script, name])
            .arg(if owns_dir { dir.as_os_str() } else { "".as_ref() })
            .arg(binary(name))
            .args(args.iter().map(|(name, value)| format!("{name}={value}")))
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { shell, log }
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
