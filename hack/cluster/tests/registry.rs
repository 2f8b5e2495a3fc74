//! Pushing to a real registry: Debian's docker-registry on the loopback interface, unpacked but not installed (its
//! package would start a service). Needs the package mirror, so it runs only with `TRYSAIL_REGISTRY_TEST=1`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use trysail_cluster::image::{ensure_images, registry};
use trysail_cluster::progress::Progress;

const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// bcrypt of `secret`.
const PASSWORD_FILE: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A running registry; it ends with the test, whichever way that ends.
struct Registry {
    child: Child,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unpack(dir: &Path) {
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run("apt-get", &["download", "docker-registry"]);
    run("sh", &["-c", "dpkg -x docker-registry_*.deb ."]);
}

fn start(dir: &Path, auth: &str) -> Registry {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let storage = dir.join(format!("storage-{port}"));
    let config = dir.join(format!("config-{port}.yml"));
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{auth}",
        storage.display()
    );
    fs::write(&config, text).unwrap();
    let child = Command::new(dir.join("usr/bin/docker-registry"))
        .arg("serve")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let registry = Registry { child, port };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "docker-registry does not listen on {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
    registry
}

fn get(url: &str) -> Vec<u8> {
    ureq::get(url)
        .header("Accept", "application/vnd.oci.image.manifest.v1+json")
        .call()
        .unwrap()
        .body_mut()
        .with_config()
        .limit(1 << 30)
        .read_to_vec()
        .unwrap()
}

/// What was pushed is there, byte for byte; a second push finds everything and succeeds; a registry that asks for a
/// login refuses a push without one, in words, and takes one with it.
#[test]
fn images_arrive_whole() {
    if std::env::var_os("TRYSAIL_REGISTRY_TEST").is_none() {
        eprintln!("skipped: set TRYSAIL_REGISTRY_TEST=1");
        return;
    }
    let progress = Progress::new();
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path());
    let tars = ensure_images(&[PAUSE], &progress).unwrap();

    let open = start(dir.path(), "");
    let target = format!("127.0.0.1:{}/test/pause:1", open.port);
    registry::push(&tars[0], PAUSE, &target, None, &progress).unwrap();
    registry::push(&tars[0], PAUSE, &target, None, &progress).unwrap();
    let base = format!("http://127.0.0.1:{}/v2/test/pause", open.port);
    let manifest: serde_json::Value = serde_json::from_slice(&get(&format!("{base}/manifests/1"))).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    for part in layers.iter().chain([&manifest["config"]]) {
        let digest = part["digest"].as_str().unwrap();
        let bytes = get(&format!("{base}/blobs/{digest}"));
        assert_eq!(format!("sha256:{}", hex::encode(Sha256::digest(&bytes))), digest);
    }

    let passwords = dir.path().join("passwords");
    fs::write(&passwords, PASSWORD_FILE).unwrap();
    let closed =
        start(dir.path(), &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", passwords.display()));
    let target = format!("127.0.0.1:{}/test/pause:1", closed.port);
    let error = format!("{:#}", registry::push(&tars[0], PAUSE, &target, None, &progress).unwrap_err());
    assert!(error.contains("wants a login: set TRYSAIL_REGISTRY_USER"), "{error}");
    let login = registry::Login { user: "user".into(), password: "secret".into() };
    registry::push(&tars[0], PAUSE, &target, Some(&login), &progress).unwrap();
}
