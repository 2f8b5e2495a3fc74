//! A manager as a process of this machine, in the name of one that the cluster runs: for what cannot be done to a
//! pod, or not thirty times in a minute.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{audit, manager, wait, workload::Face};

/// A running manager; ends with its value.
#[derive(Debug)]
pub struct LocalManager {
    child: Child,
    address: SocketAddr,
    _kubeconfig: NamedTempFile,
}

impl LocalManager {
    /// Starts `program`, which stands for the Lease that the cluster's managers of that face stand for.
    pub fn start(program: Command, face: Face) -> Result<Self> {
        let identity = audit::IDENTITIES[usize::from(face == Face::Crd)];
        let mut config = kube::config::Kubeconfig::read()?;
        for user in config.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
            user.impersonate = Some(identity.to_owned());
            user.impersonate_groups = Some(vec!["system:authenticated".to_owned()]);
        }
        let kubeconfig = NamedTempFile::new()?;
        serde_json::to_writer(&kubeconfig, &config)?;
        Self::with_kubeconfig(program, face, kubeconfig)
    }

    /// The same with other ways to the API server.
    pub fn with_kubeconfig(mut program: Command, face: Face, kubeconfig: NamedTempFile) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0").context("no free port")?.local_addr()?;
        let (api, namespace) = match face {
            Face::Crd => ("crd", manager::NAMESPACE),
            Face::Native => ("native", manager::NATIVE.0),
        };
        program.arg("--kubeconfig").arg(kubeconfig.path()).arg(format!("--bind-address={address}"));
        program.args(["--api", api, "--leader-elect-namespace", namespace, "--skip-native-check"]);
        let child = program.stdin(Stdio::null()).spawn().context("failed to start a manager")?;
        Ok(Self { child, address, _kubeconfig: kubeconfig })
    }

    /// True when it leads, in its own words.
    pub async fn leads(&self) -> bool {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        // One that has just started, or was killed, does not answer.
        exchange.await.is_ok_and(|answer| {
            answer.contains(&format!("leader_election_master_status{{name=\"{}\"}} 1\n", manager::LEASE))
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid()?, signal).with_context(|| format!("failed to send {signal} to a local manager"))
    }

    /// True while it stands still (SIGSTOP).
    pub fn is_stopped(&self) -> Result<bool> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        let (_, state) = stat.rsplit_once(") ").context("/proc has another form")?;
        Ok(state.starts_with('T'))
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let child = std::sync::Mutex::new(&mut self.child);
        let ended =
            || child.lock().map(|mut child| child.try_wait()).map_err(|_| anyhow::anyhow!("poisoned"));
        wait::until("the local manager to end", limit, || async { Ok(ended()??.is_some()) }).await?;
        ended()??.context("it has ended")
    }

    /// Ends it in order, so that its lease is free.
    pub async fn stop(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "a local manager had ended before");
        self.signal(Signal::SIGTERM)?;
        let status = self.ended(Duration::from_secs(60)).await?;
        ensure!(status.success(), "a local manager ended with {status}");
        Ok(())
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }
}

impl Drop for LocalManager {
    fn drop(&mut self) {
        // Both fail when it has ended already. A stopped process dies as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
