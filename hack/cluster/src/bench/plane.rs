//! A bare control plane on loopback: etcd in memory and an API server, nothing that reconciles.
//!
//! There is no scheduler and no garbage collector: `binder` gives pods their nodes, kwok plays the kubelets, and
//! every run begins with data of its own, so nothing has to be cleaned.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::account::process_cpu;
use super::client::Api;
use super::daemon::{Daemon, free_ports};
use super::home::{Home, User};
use crate::interrupt;
use crate::process::{command, run};

const START_TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// 50,000 pods and their history fit many times.
const ETCD_QUOTA: u64 = 8 << 30;

/// A running control plane. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Plane<'a> {
    home: &'a Home,
    // Fields drop in order: clients before servers.
    kubelets: Option<Daemon>,
    apiserver: Daemon,
    etcd: Daemon,
    api_port: u16,
    etcd_port: u16,
}

impl<'a> Plane<'a> {
    /// Starts on whatever lies in the home's etcd directory.
    pub(crate) fn start(home: &'a Home) -> Result<Self> {
        let [api_port, etcd_port, peer_port] = free_ports()?;
        let logs = home.logs();
        // Counts of an earlier run must not be read as this one's.
        fs::write(home.audit_log(), "").context("cannot empty the audit log")?;
        let etcd = etcd_args(&home.etcd_data(), etcd_port, peer_port);
        let etcd = Daemon::start("etcd", &home.program("etcd"), &etcd, &logs)?;
        let args = apiserver_args(home, api_port, etcd_port);
        let apiserver = Daemon::start("kube-apiserver", &home.program("kube-apiserver"), &args, &logs)?;
        let mut plane = Self { home, kubelets: None, apiserver, etcd, api_port, etcd_port };
        plane.wait_ready()?;
        Ok(plane)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let api = self.api(User::Driver)?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let Err(error) = api.get("/readyz") else { return Ok(()) };
            interrupt::check()?;
            self.check()?;
            if Instant::now() > deadline {
                let log = self.apiserver.log_tail();
                bail!("kube-apiserver is not ready after {} s: {error:#}\n{log}", START_TIMEOUT.as_secs());
            }
            thread::sleep(POLL);
        }
    }

    /// Starts the simulated kubelets.
    pub(crate) fn start_kubelets(&mut self) -> Result<()> {
        let kubeconfig = self.kubeconfig(User::Kubelets)?;
        let args = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--config={}", self.home.path("stages.yaml").display()),
            "--manage-all-nodes=true".to_owned(),
            // Pods are many: one address range that does not run out.
            "--cidr=10.0.0.0/8".to_owned(),
            "--v=WARN".to_owned(),
        ];
        self.kubelets = Some(Daemon::start("kwok", &self.home.kwok(), &args, &self.home.logs())?);
        Ok(())
    }

    pub(crate) fn api(&self, user: User) -> Result<Api> {
        Api::new(self.api_port, &self.home.authority()?, &self.home.token(user))
    }

    pub(crate) fn kubeconfig(&self, user: User) -> Result<std::path::PathBuf> {
        self.home.kubeconfig(user, self.api_port)
    }

    /// CPU time of the API server: a cheap client must not burden it.
    pub(crate) fn apiserver_cpu(&self) -> Result<Duration> {
        process_cpu(self.apiserver.pid())
    }

    /// Fails when a component has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.etcd.check()?;
        self.apiserver.check()?;
        self.kubelets.as_mut().map_or(Ok(()), Daemon::check)
    }

    /// Drops history, so that a saved copy holds the objects alone.
    pub(crate) fn compact(&self) -> Result<()> {
        let etcdctl = |args: &[&str]| {
            let endpoint = format!("--endpoints=http://127.0.0.1:{}", self.etcd_port);
            run(command(self.home.program("etcdctl")).arg(endpoint).arg("--command-timeout=120s").args(args))
        };
        let status: serde_json::Value =
            serde_json::from_str(&etcdctl(&["endpoint", "status", "--write-out=json"])?)?;
        let revision = status[0]["Status"]["header"]["revision"].as_u64().context("etcd told no revision")?;
        etcdctl(&["compact", &revision.to_string(), "--physical"])?;
        etcdctl(&["defrag"])?;
        Ok(())
    }

    /// Ends everything in order, so that etcd's files are whole.
    pub(crate) fn stop(self) -> Result<()> {
        // The kubelets have nothing to finish; only etcd does.
        drop(self.kubelets);
        drop(self.apiserver);
        self.etcd.stop()
    }
}

fn etcd_args(data: &Path, port: u16, peer_port: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    vec![
        "--name=bench".to_owned(),
        format!("--data-dir={}", data.display()),
        "--unsafe-no-fsync".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=bench={peer}"),
        format!("--quota-backend-bytes={ETCD_QUOTA}"),
        "--log-level=warn".to_owned(),
    ]
}

fn apiserver_args(home: &Home, port: u16, etcd_port: u16) -> Vec<String> {
    let file = |name: &str| home.path(name).display().to_string();
    let pki = home.pki();
    let key = |name: &str| pki.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        // Loopback may not be advertised, and nobody asks for the Service of the API server.
        "--advertise-address=198.18.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--secure-port={port}"),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        format!("--tls-cert-file={}", key("apiserver.crt")),
        format!("--tls-private-key-file={}", key("apiserver.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-signing-key-file={}", key("sa.key")),
        format!("--service-account-key-file={}", key("sa.pub")),
        format!("--token-auth-file={}", file("tokens.csv")),
        // Rights are no part of what is measured.
        "--authorization-mode=AlwaysAllow".to_owned(),
        // No controller makes service accounts here.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        format!("--audit-policy-file={}", file("audit-policy.json")),
        format!("--audit-log-path={}", home.audit_log().display()),
        // Rotation would split the log under the eyes of whoever reads it.
        "--audit-log-maxsize=8192".to_owned(),
        "--v=0".to_owned(),
    ]
}
