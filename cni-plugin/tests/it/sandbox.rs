//! A node of our own: a network namespace, pods in others, and the plugin called as a runtime calls it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

pub(crate) const PLUGIN: &str = env!("CARGO_BIN_EXE_trysail-cni");

/// A network namespace, as long as this lives.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: they make network namespaces");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap())
    }

    /// A path that names it while it lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs something inside, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Number of a process inside, for `ip link … netns`; it ends by itself.
    pub(crate) fn pid(&self) -> u32 {
        let child = self.run(|| Command::new("sleep").arg("2").spawn().unwrap());
        let pid = child.id();
        std::thread::spawn(move || child.wait_with_output());
        pid
    }

    /// Runs a command line inside, which must succeed.
    pub(crate) fn sh(&self, line: &str) -> String {
        let output = self.run(|| Command::new("sh").args(["-ec", line]).output().unwrap());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

/// A node with a store.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) net: Namespace,
    pub(crate) data: tempfile::TempDir,
}

/// One call's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) json: Value,
    pub(crate) stderr: String,
}

impl Answer {
    pub(crate) fn read(output: &Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let json =
            if stdout.trim().is_empty() { Value::Null } else { serde_json::from_str(&stdout).unwrap() };
        Self {
            success: output.status.success(),
            json,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The result, or a panic with the error.
    pub(crate) fn ok(self) -> Value {
        assert!(self.success, "{} {}", self.json, self.stderr);
        self.json
    }

    /// The error: code, message and details.
    pub(crate) fn error(self) -> (u64, String) {
        assert!(!self.success, "it succeeded: {}", self.json);
        let text = |key: &str| self.json[key].as_str().unwrap_or_default().to_owned();
        (self.json["code"].as_u64().unwrap(), format!("{}; {}", text("msg"), text("details")))
    }
}

impl Node {
    pub(crate) fn new() -> Self {
        let node = Self { net: Namespace::new(), data: tempfile::tempdir_in("/dev/shm").unwrap() };
        // The node's own addresses, from which it speaks to pods.
        node.net.sh("ip link set lo up && ip addr add 10.0.0.1/32 dev lo && ip addr add fd99::1/128 dev lo");
        node
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// A configuration with both families.
    pub(crate) fn conf(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "trysail-cni",
            "dataDir": self.data_dir(), "mtu": 1450, "masquerade": {},
            "ipam": { "ranges": [[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:1::/64" }]] },
        })
    }

    /// The plugin, ready to be started in the node.
    pub(crate) fn command(verb: &str, id: &str, netns: &str) -> Command {
        let mut command = Command::new(PLUGIN);
        with_environment(&mut command, verb, id, netns);
        command
    }

    pub(crate) fn run(&self, command: Command, conf: &Value) -> Output {
        self.net.run(|| run(command, conf))
    }

    pub(crate) fn call(&self, verb: &str, id: &str, netns: &str, conf: &Value) -> Answer {
        Answer::read(&self.run(Self::command(verb, id, netns), conf))
    }

    pub(crate) fn add(&self, id: &str, pod: &Namespace, conf: &Value) -> Value {
        self.call("ADD", id, &pod.path(), conf).ok()
    }

    pub(crate) fn del(&self, id: &str, pod: &Namespace, conf: &Value) {
        self.call("DEL", id, &pod.path(), conf).ok();
    }

    /// CHECK with the result of ADD.
    pub(crate) fn check(&self, id: &str, pod: &Namespace, conf: &Value, result: &Value) -> Answer {
        let mut conf = conf.clone();
        conf["prevResult"] = result.clone();
        self.call("CHECK", id, &pod.path(), &conf)
    }

    /// GC with these attachments alive.
    pub(crate) fn gc(&self, alive: &[&str], conf: &Value) -> Answer {
        let mut conf = conf.clone();
        let list: Vec<Value> =
            alive.iter().map(|id| json!({ "containerID": id, "ifname": "eth0" })).collect();
        conf["cni.dev/valid-attachments"] = json!(list);
        self.call("GC", "", "", &conf)
    }

    /// Everything that attachments leave on a node: links, routes, neighbours, elements, records.
    pub(crate) fn remains(&self) -> String {
        let links = self.net.sh("ip -br link | awk '$1 !~ /^(lo|up)/ { print $1 }'");
        let routes = self.net.sh("ip route show proto 252; ip -6 route show proto 252");
        let neighbours = self.net.sh("ip neigh show nud permanent");
        let elements = self.elements();
        let state = trysail_cni::store::Store::new(&self.data_dir()).read().unwrap();
        let records: Vec<String> =
            state.records().map(|record| format!("{:?} {}", record.phase, record.key)).collect();
        format!("{links}{routes}{neighbours}{elements}{}", records.join("\n"))
    }

    /// Elements of the table's sets and maps, but for the constant ones.
    pub(crate) fn elements(&self) -> String {
        let text = self.net.sh("nft -j list ruleset");
        let ruleset: Value = serde_json::from_str(&text).unwrap();
        let objects = ruleset["nftables"].as_array().unwrap();
        let sets = objects.iter().filter_map(|object| object.get("set").or_else(|| object.get("map")));
        let filled = sets.filter(|set| !set["name"].as_str().unwrap().starts_with("excluded"));
        let filled = filled.filter(|set| !set["elem"].is_null());
        filled.map(|set| format!("{}: {}", set["name"], set["elem"])).collect::<Vec<_>>().join("\n")
    }
}

pub(crate) fn with_environment(command: &mut Command, verb: &str, id: &str, netns: &str) {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("CNI_COMMAND", verb)
        .env("CNI_PATH", "/");
    for (name, value) in [("CNI_CONTAINERID", id), ("CNI_NETNS", netns)] {
        if !value.is_empty() {
            command.env(name, value);
        }
    }
    if !id.is_empty() {
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=pod-{id}");
        command.env("CNI_IFNAME", "eth0").env("CNI_ARGS", args);
    }
}

pub(crate) fn run(mut command: Command, conf: &Value) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A plugin that was killed reads nothing.
    let _ = child.stdin.take().unwrap().write_all(conf.to_string().as_bytes());
    child.wait_with_output().unwrap()
}

/// The address of a result, without its prefix.
pub(crate) fn ip(result: &Value, index: usize) -> String {
    result["ips"][index]["address"].as_str().unwrap().split('/').next().unwrap().to_owned()
}
