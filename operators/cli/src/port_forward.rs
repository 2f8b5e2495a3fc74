//! `port-forward KIND/NAME LOCAL:REMOTE`: every local connection gets a stream of its own to a ready pod.
//!
//! When the pod has gone, the next connection goes to another pod of the workload: a rollout does not end a session.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinSet,
};
use trysail_core::resource::PODS;

use crate::{
    args::PortForward,
    cluster::Cluster,
    failure::{Failure, chain},
    kind,
    kind::KindArg,
    pods,
    target::Target,
    text::{note, out},
};

/// `LOCAL:REMOTE` as written; 0 asks for any free local port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ports {
    local: Option<u16>,
    remote: String,
}

fn parse(word: &str) -> Result<Ports> {
    let wrong =
        || anyhow!("\"{word}\" is no port; write REMOTE, LOCAL:REMOTE or :REMOTE, for example 8080:80");
    let (local, remote) = word.split_once(':').map_or((None, word), |(local, remote)| (Some(local), remote));
    if remote.is_empty() || remote.contains(':') {
        return Err(wrong());
    }
    let local = match local {
        None => None,
        Some("") => Some(0),
        Some(local) => Some(local.parse().map_err(|_| wrong())?),
    };
    Ok(Ports { local, remote: remote.to_owned() })
}

/// The pod that connections go to, and how to find another one.
struct Upstream {
    cluster: Cluster,
    kind: KindArg,
    name: String,
    pod: Mutex<String>,
}

/// Forwards until interrupted.
pub(crate) async fn run(cluster: &Cluster, args: PortForward) -> Result<()> {
    let (kind, name, words) = kind::split(&args.words)?;
    if words.is_empty() {
        bail!("which port? Write LOCAL:REMOTE, for example 8080:80");
    }
    let ports = words.iter().map(|word| parse(word)).collect::<Result<Vec<_>>>()?;
    let target = Target::find(cluster, kind, name).await?;
    let found = pods::of(cluster, &target).await?;
    let (pod, typed) = pods::running(&target, &found)?;
    let kind = KindArg { face: Some(target.face), ..kind };
    let upstream =
        Arc::new(Upstream { cluster: cluster.clone(), kind, name: name.to_owned(), pod: Mutex::new(pod) });
    let mut listeners = JoinSet::new();
    for Ports { local, remote } in ports {
        let remote = pods::port(&typed, &remote)?;
        for &address in &args.address {
            let listener = listen(address, local.unwrap_or(remote)).await?;
            out(&format!("Forwarding from {} -> {remote}\n", listener.local_addr()?))?;
            listeners.spawn(serve(listener, remote, Arc::clone(&upstream)));
        }
    }
    match listeners.join_next().await {
        Some(ended) => ended?,
        None => Ok(()),
    }
}

async fn listen(address: IpAddr, port: u16) -> Result<TcpListener> {
    let address = SocketAddr::new(address, port);
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another local port, or :REMOTE for any free one")
    })
}

async fn serve(listener: TcpListener, remote: u16, upstream: Arc<Upstream>) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (connection, _) = listener.accept().await.context("cannot accept local connections any more")?;
        let upstream = Arc::clone(&upstream);
        connections.spawn(async move {
            if let Err(error) = forward(connection, remote, &upstream).await {
                note(&format!("port {remote}: {}", chain(error.as_ref())));
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(mut local: TcpStream, remote: u16, upstream: &Upstream) -> Result<()> {
    let pod = upstream.pod.lock().await.clone();
    let api: Api<Pod> = Api::namespaced(upstream.cluster.client(), &upstream.cluster.namespace);
    let mut forwarder = match api.portforward(&pod, &[remote]).await {
        Ok(forwarder) => forwarder,
        Err(first) => {
            let next = upstream.another(&pod).await?;
            if next == pod {
                return Err(upstream.failed(&pod, first).into());
            }
            note(&format!("pod {pod} cannot be reached any more; forwarding to {next}"));
            api.portforward(&next, &[remote]).await.map_err(|error| upstream.failed(&next, error))?
        }
    };
    let mut stream = forwarder.take_stream(remote).context("the connection carries no such port")?;
    let errors = forwarder.take_error(remote).context("the connection carries no such port")?;
    tokio::select! {
        // A side that just closes has said what it had to say.
        _ = copy_bidirectional(&mut local, &mut stream) => {}
        Some(message) = errors => bail!("{}", message.trim_end()),
    }
    drop(stream);
    Ok(())
}

impl Upstream {
    /// The pod to use instead of `gone`; other connections use it from now on.
    async fn another(&self, gone: &str) -> Result<String> {
        let mut pod = self.pod.lock().await;
        if *pod == gone {
            let target = Target::find(&self.cluster, self.kind, &self.name).await?;
            let found = pods::of(&self.cluster, &target).await?;
            (*pod, _) = pods::running(&target, &found)?;
        }
        Ok(pod.clone())
    }

    fn failed(&self, pod: &str, error: kube::Error) -> Failure {
        self.cluster.attempt("create", PODS).name(&format!("{pod}/portforward")).failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_for_kubectl() {
        let ports = |text: &str| parse(text).map(|ports| (ports.local, ports.remote)).ok();
        assert_eq!(ports("80"), Some((None, "80".into())));
        assert_eq!(ports("8080:http"), Some((Some(8080), "http".into())));
        assert_eq!(ports(":80"), Some((Some(0), "80".into())));
        for bad in ["", ":", "80:", "x:80", "70000:80", "1:2:3"] {
            assert_eq!(ports(bad), None, "{bad}");
        }
    }
}
