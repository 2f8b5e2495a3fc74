//! In place of a scheduler: gives every new pod a node, in turn.
//!
//! A DaemonSet's pod gets the node that its affinity names.
//!
//! kube-scheduler would do the same with more work for the machine (and one event per pod for the API server), and
//! none of it is the subject's. What the subject sees is the same: a pod that changes once when it is bound.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Api, Change, Versioned};
use super::manifests;

/// Bindings in flight: keeps up with the fastest subject on two cores.
const SENDERS: usize = 4;

const PODS: &str = "/api/v1/pods";
/// A pod leaves this selection when it is bound, and that shows as its deletion.
const UNBOUND: &str = "fieldSelector=spec.nodeName%3D";

#[derive(Debug, Deserialize)]
struct Pod {
    metadata: PodMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodMeta {
    name: String,
    namespace: String,
    resource_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    affinity: Value,
}

impl Pod {
    /// The node that a DaemonSet chose.
    fn target(&self) -> Option<&str> {
        let required =
            self.spec.affinity.pointer("/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution")?;
        required.pointer("/nodeSelectorTerms/0/matchFields/0/values/0")?.as_str()
    }
}

impl Versioned for Pod {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// The binder at work. It ends with the API server's watch.
#[derive(Debug)]
pub(crate) struct Binder {
    failed: Arc<AtomicBool>,
}

impl Binder {
    pub(crate) fn start(api: &Api) -> Result<Self> {
        let mut waiting = Vec::new();
        let version = api.list(PODS, |pod: Pod| {
            if pod.spec.node_name.is_empty() {
                waiting.push(pod);
            }
        })?;
        let (sender, receiver) = mpsc::channel::<Pod>();
        let receiver = Arc::new(Mutex::new(receiver));
        let failed = Arc::new(AtomicBool::new(false));
        let turn = Arc::new(AtomicUsize::new(0));
        for _ in 0..SENDERS {
            let (api, receiver, turn) = (api.clone(), Arc::clone(&receiver), Arc::clone(&turn));
            thread::spawn(move || {
                loop {
                    let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(pod) = next else { return };
                    bind(&api, &pod, turn.fetch_add(1, Ordering::Relaxed));
                }
            });
        }
        let (api, flag) = (api.clone(), Arc::clone(&failed));
        thread::spawn(move || {
            let send = |pod: Pod| match sender.send(pod) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
            let _ = waiting.into_iter().try_for_each(&send);
            let followed = api.follow(PODS, UNBOUND, version, |change: Change<Pod>| {
                if change.deleted { ControlFlow::Continue(()) } else { send(change.object) }
            });
            if followed.is_err() {
                flag.store(true, Ordering::Relaxed);
            }
        });
        Ok(Self { failed })
    }

    /// Whether it lost its watch to a fault.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

fn bind(api: &Api, pod: &Pod, turn: usize) {
    let PodMeta { namespace, name, .. } = &pod.metadata;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
    let node = pod.target().map_or_else(|| manifests::node_name(turn % manifests::NODES), str::to_owned);
    // A pod that was deleted meanwhile cannot be bound, and the end of the API server ends everything: a pod that
    // stays unbound for any other reason shows as a phase that does not converge.
    let _ = api.create(&path, &manifests::binding(namespace, name, &node));
}
