//! Others in the place of the static pod that serves the native kinds: managers that may be killed as often as a test
//! likes, where the kubelet would wait ever longer before it starts a static pod again that keeps dying, and
//! kube-controller-manager's own controllers.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use kube::Client;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use trysail_cluster::{Node, config::NATIVE_CONTROLLERS, layout::inside, setup};

use crate::{cluster, local::LocalManager, manager, program, wait, workload::Face};

const LIMIT: Duration = Duration::from_secs(180);

/// The static pod while its manifest lies elsewhere; a test that fails brings it back, too.
#[derive(Debug)]
pub struct Absent {
    node: Node,
}

impl Absent {
    /// Takes the static pod away.
    pub async fn take_away(client: &Client) -> Result<Self> {
        let taken = Self { node: cluster()?.node("cp")? };
        taken.node.exec(&["mv", &Self::manifest(), &Self::elsewhere()])?;
        wait::until("the static pod to end", LIMIT, || async {
            Ok(manager::native(client).await?.is_none())
        })
        .await?;
        Ok(taken)
    }

    /// Brings it back and waits until it is ready.
    pub async fn bring_back(self, client: &Client) -> Result<()> {
        drop(self);
        wait::until("the static pod to be back", LIMIT, || async {
            Ok(manager::native(client).await?.is_some_and(|pod| manager::is_ready(&pod)))
        })
        .await
    }

    fn manifest() -> String {
        format!("{}/trysail-manager.yaml", inside::MANIFESTS)
    }

    fn elsewhere() -> String {
        format!("{}/trysail-manager.yaml", inside::KUBERNETES)
    }
}

impl Drop for Absent {
    fn drop(&mut self) {
        if let Err(error) = self.node.exec(&["mv", &Self::elsewhere(), &Self::manifest()]) {
            eprintln!("the static pod's manifest could not be brought back: {error:#}");
        }
    }
}

/// Two managers as processes of this machine in the static pod's place.
#[derive(Debug)]
pub struct StandIns {
    managers: Vec<LocalManager>,
    absent: Absent,
}

impl StandIns {
    /// Starts them and takes the static pod away.
    pub async fn start(client: &Client) -> Result<Self> {
        let managers = vec![Self::another()?, Self::another()?];
        Ok(Self { managers, absent: Absent::take_away(client).await? })
    }

    fn another() -> Result<LocalManager> {
        LocalManager::start(program::manager()?, Face::Native)
    }

    /// Kills the one that leads, as a power cut would, and starts another one. See [`manager::kill_leader`].
    pub async fn kill_leader(&mut self, client: &Client) -> Result<()> {
        let leader = self.leader().await?;
        self.managers.remove(leader).signal(Signal::SIGKILL)?;
        manager::free_lease(client, manager::NATIVE.0).await?;
        self.managers.push(Self::another()?);
        Ok(())
    }

    /// Waits until one of them leads; says which.
    async fn leader(&self) -> Result<usize> {
        let deadline = tokio::time::Instant::now() + LIMIT;
        while tokio::time::Instant::now() < deadline {
            for (at, manager) in self.managers.iter().enumerate() {
                if manager.leads().await {
                    return Ok(at);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("none of {} local managers leads after {LIMIT:?}", self.managers.len())
    }

    /// Brings the static pod back and ends them in order.
    pub async fn end(self, client: &Client) -> Result<()> {
        self.absent.bring_back(client).await?;
        for manager in self.managers {
            manager.stop().await?;
        }
        Ok(())
    }
}

/// kube-controller-manager with exactly those controllers that ours stand in for, as a process of this machine. The
/// cluster's own one goes on with all others.
#[derive(Debug)]
pub struct StockControllers {
    child: Child,
}

impl StockControllers {
    /// Starts them, as the cluster's administrator.
    pub fn start() -> Result<Self> {
        let names = NATIVE_CONTROLLERS.map(|name| format!("{name}-controller"));
        let mut program = Command::new(setup::tool("kube-controller-manager")?);
        program.arg("--kubeconfig").arg(cluster()?.kubeconfig());
        program.arg(format!("--controllers={}", names.join(",")));
        program.args(["--leader-elect=false", "--secure-port=0", "--v=1"]);
        let child =
            program.stdin(Stdio::null()).spawn().context("failed to start kube-controller-manager")?;
        Ok(Self { child })
    }

    /// Ends them and waits until they have ended: two controllers of one kind would fight.
    pub async fn stop(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "kube-controller-manager had ended before");
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let child = std::sync::Mutex::new(&mut self.child);
        wait::until("kube-controller-manager to end", LIMIT, || async {
            let mut child = child.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
            Ok(child.try_wait()?.is_some())
        })
        .await
    }
}

impl Drop for StockControllers {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
