//! In place of a scheduler: gives every new pod a node, in turn.
//!
//! kube-scheduler would do the same with more work for the machine (and one event per pod for the API server), and
//! none of it is the subject's. What the subject sees is the same: a pod that changes once when it is bound.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use anyhow::Result;
use serde::Deserialize;

use super::client::{Api, Watch};
use super::manifests;

/// Bindings in flight: keeps up with the fastest subject on two cores.
const SENDERS: usize = 4;

#[derive(Debug, Deserialize)]
struct Pod {
    metadata: Name,
}

#[derive(Debug, Deserialize)]
struct Name {
    name: String,
    namespace: String,
}

/// The binder at work. It ends with the API server's watch.
#[derive(Debug)]
pub(crate) struct Binder {
    failed: Arc<AtomicBool>,
}

impl Binder {
    pub(crate) fn start(api: &Api) -> Result<Self> {
        // Without a resourceVersion the server first sends what there is.
        let watch = api.watch("/api/v1/pods", "fieldSelector=spec.nodeName%3D")?;
        let (sender, receiver) = mpsc::channel::<Name>();
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
        let flag = Arc::clone(&failed);
        thread::spawn(move || {
            if read(watch, &sender).is_err() {
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

fn read(mut watch: Watch, pods: &mpsc::Sender<Name>) -> Result<()> {
    while let Some(event) = watch.next::<Pod>()? {
        if event.kind == "ADDED" && pods.send(event.object.metadata).is_err() {
            break;
        }
    }
    Ok(())
}

fn bind(api: &Api, pod: &Name, turn: usize) {
    let path = format!("/api/v1/namespaces/{}/pods/{}/binding", pod.namespace, pod.name);
    let node = manifests::node_name(turn % manifests::NODES);
    // A pod that was deleted meanwhile cannot be bound, and the end of the API server ends everything: a pod that
    // stays unbound for any other reason shows as a phase that does not converge.
    let _ = api.create(&path, &manifests::binding(&pod.namespace, &pod.name, &node));
}
