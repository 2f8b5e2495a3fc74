//! The scheduler spreads pods of native owners by default, and those of ours because their owners say so on the pods.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use trysail_e2e::{
    TestNamespace, connect,
    kinds::stateful_set,
    object::Object,
    workload::{Face, deployment},
};

const LIMIT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_spread_over_nodes() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "spread").await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let mut set = stateful_set(face, "set", 6);
        set["spec"]["podManagementPolicy"] = json!("Parallel");
        for manifest in [deployment(face, "web", 6), set] {
            let owner = Object::create(&client, &namespace, &manifest).await?;
            owner.wait_complete(LIMIT).await?;
            let mut on_node: BTreeMap<String, usize> = BTreeMap::new();
            let list = ListParams::default().labels(&format!("app={}", owner.name));
            for pod in pods.list(&list).await?.items {
                let name = pod.name_any();
                let spec = pod.spec.unwrap_or_default();
                *on_node.entry(spec.node_name.unwrap_or_default()).or_default() += 1;
                let said = spec.topology_spread_constraints.unwrap_or_default();
                let keys: Vec<(&str, i32)> =
                    said.iter().map(|said| (said.topology_key.as_str(), said.max_skew)).collect();
                // The nodes of a test cluster are in no zone.
                let wanted = if face == Face::Crd { vec![("kubernetes.io/hostname", 3)] } else { Vec::new() };
                ensure!(keys == wanted, "{name} says {keys:?}");
            }
            ensure!(on_node.len() > 1, "all on one node: {on_node:?}");
            owner.delete(&DeleteParams::background()).await?;
        }
        namespace.delete().await
    })
    .await
}
