//! Where a bench lives while it runs: one directory in memory with certificates, credentials, logs and etcd's data.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;
use serde_json::json;
use tempfile::TempDir;

use crate::config::KUBERNETES_VERSION;
use crate::process::{command, run};
use crate::setup::{self, Group};

/// Data of etcd stay in memory: the subjects are compared, not the disk.
const MEMORY_DIR: &str = "/dev/shm";
const PREFIX: &str = "trysail-bench-";
/// etcd with 50,000 pods and their history, and the audit log.
const SPACE: u64 = 4 << 30;

/// Stages of simulated nodes and pods, in the source of kwok's module.
const STAGES: [&str; 5] = [
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
    "node/fast/node-initialize.yaml",
    "node/heartbeat/node-heartbeat.yaml",
];

/// Who speaks to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// The bench itself: creates the work and looks at it. Exempt from priority and fairness.
    Driver,
    /// The simulated kubelets. Exempt, too: their writes are no subject's business.
    Kubelets,
    /// The subject, whichever it is. The name decides the priority level, so both have the same one, and it is
    /// the one that kube-controller-manager has in a real cluster.
    Subject,
}

impl User {
    const ALL: [User; 3] = [User::Driver, User::Kubelets, User::Subject];

    /// The name in the audit log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            User::Driver => "bench-driver",
            User::Kubelets => "bench-kubelets",
            User::Subject => "system:kube-controller-manager",
        }
    }

    fn group(self) -> &'static str {
        match self {
            User::Driver | User::Kubelets => "system:masters",
            User::Subject => "",
        }
    }

    /// The name as part of a file's.
    fn file_name(self) -> String {
        self.name().replace(':', "-")
    }
}

/// The directory and what was prepared in it. It is removed when dropped.
#[derive(Debug)]
pub(crate) struct Home {
    dir: TempDir,
    /// Other users of this machine reach loopback, too.
    secret: String,
    bin: PathBuf,
    tools: PathBuf,
}

impl Home {
    pub(crate) fn prepare() -> Result<Self> {
        let (bin, tools) = (setup::bin_dir(Group::Cluster)?, setup::bin_dir(Group::Tools)?);
        sweep();
        let space = statvfs(MEMORY_DIR).with_context(|| format!("{MEMORY_DIR} is needed for etcd's data"))?;
        if space.blocks_available() * space.fragment_size() < SPACE {
            bail!("{MEMORY_DIR} has less than {} GiB free: enlarge it or free memory", SPACE >> 30);
        }
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(MEMORY_DIR);
        let home =
            Self { dir: dir.context("cannot make a directory in memory")?, secret: secret()?, bin, tools };
        for path in [home.pki(), home.logs()] {
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        home.write("tokens.csv", &home.tokens())?;
        home.write("audit-policy.json", &audit_policy())?;
        home.write("stages.yaml", &stages()?)?;
        home.certificates()?;
        Ok(home)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.path("pki")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    pub(crate) fn etcd_data(&self) -> PathBuf {
        self.path("etcd")
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.path("audit.log")
    }

    /// A program of Kubernetes or etcd.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    pub(crate) fn kwok(&self) -> PathBuf {
        self.tools.join("kwok")
    }

    pub(crate) fn authority(&self) -> Result<Vec<u8>> {
        fs::read(self.pki().join("ca.crt")).context("cannot read the bench's CA")
    }

    pub(crate) fn token(&self, user: User) -> String {
        format!("{}-{}", self.secret, user.file_name())
    }

    fn tokens(&self) -> String {
        let line = |user: User| {
            format!("{},{},{},\"{}\"\n", self.token(user), user.name(), user.name(), user.group())
        };
        User::ALL.into_iter().map(line).collect()
    }

    /// Writes the credentials of `user` for the API server on `port`.
    pub(crate) fn kubeconfig(&self, user: User, port: u16) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority": self.pki().join("ca.crt"),
            }}],
            "users": [{"name": "bench", "user": {"token": self.token(user)}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        });
        let name = format!("{}.kubeconfig", user.file_name());
        self.write(&name, &config.to_string())?;
        Ok(self.path(&name))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn certificates(&self) -> Result<()> {
        self.write("kubeadm.yaml", &kubeadm_config(&self.pki()))?;
        run(command(self.program("kubeadm"))
            .args(["init", "phase", "certs", "all", "--config"])
            .arg(self.path("kubeadm.yaml")))
        .context("kubeadm could not make the bench's certificates")?;
        Ok(())
    }
}

/// kubeadm refuses a loopback address to advertise; the one it gets is never bound, clients use the extra name.
fn kubeadm_config(pki: &Path) -> String {
    format!(
        "\
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint:
  advertiseAddress: 198.18.0.1
nodeRegistration:
  name: bench
  criSocket: unix:///run/containerd/containerd.sock
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: {KUBERNETES_VERSION}
certificatesDir: {}
encryptionAlgorithm: ECDSA-P256
apiServer:
  certSANs: [127.0.0.1]
",
        pki.display()
    )
}

fn secret() -> Result<String> {
    let mut bytes = [0; 16];
    let mut random = fs::File::open("/dev/urandom").context("cannot read /dev/urandom")?;
    random.read_exact(&mut bytes).context("cannot read /dev/urandom")?;
    Ok(hex::encode(bytes))
}

/// Every request of the subject and no others: the log is the count of its API calls.
fn audit_policy() -> String {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "users": [User::Subject.name()]}, {"level": "None"}],
    })
    .to_string()
}

fn stages() -> Result<String> {
    let source = setup::module_source("sigs.k8s.io/kwok")?.join("kustomize/stage");
    let mut text = String::new();
    for stage in STAGES {
        let path = source.join(stage);
        text += "---\n";
        text += &fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(text)
}

/// Removes the homes of killed benches.
pub(crate) fn sweep() {
    remove_orphans(Path::new(MEMORY_DIR), PREFIX);
}

/// Removes what killed benches left in `parent`: a name says whose each is.
pub(crate) fn remove_orphans(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // Failing to tidy up is no failure of the bench; lack of space is told later.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
