//! Records of templates: one for each, the ones that are too many go, and going back to an earlier template numbers its
//! record anew.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::{Api, Client, api::DynamicObject, api::ListParams};
use serde_json::{Value, json};
use trysail_e2e::{
    TestNamespace, connect,
    kinds::{daemon_set, stateful_set},
    object::{self, Object},
    wait,
};

const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn revisions_are_pruned_and_numbered_anew() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "revisions").await?;
        let mut on_one_node = daemon_set(face, "daemons");
        on_one_node["spec"]["template"]["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "w1"});
        let set = go_and_come_back(&client, &namespace, stateful_set(face, "set", 1));
        let daemons = go_and_come_back(&client, &namespace, on_one_node);
        tokio::try_join!(set, daemons)?;
        namespace.delete().await
    })
    .await
}

async fn go_and_come_back(client: &Client, namespace: &str, mut manifest: Value) -> Result<()> {
    manifest["spec"]["revisionHistoryLimit"] = json!(1);
    let owner = Object::create(client, namespace, &manifest).await?;
    owner.wait_complete(LIMIT).await?;
    for template in ["b", "c"] {
        owner.set_annotation(template).await?;
        owner.wait_complete(LIMIT).await?;
    }
    let records =
        Records { api: object::api(client, namespace, "apps/v1", "ControllerRevision"), owner: &owner };
    // The first template is one too many.
    wait::until("two records", LIMIT, || async { Ok(records.numbers().await?.len() == 2) }).await?;
    ensure!(
        records.numbers().await? == [("b".to_owned(), 2), ("c".to_owned(), 3)],
        "{:?}",
        records.numbers().await?
    );
    owner.set_annotation("b").await?;
    owner.wait_complete(LIMIT).await?;
    ensure!(
        records.numbers().await? == [("b".to_owned(), 4), ("c".to_owned(), 3)],
        "{:?}",
        records.numbers().await?
    );
    Ok(())
}

struct Records<'a> {
    api: Api<DynamicObject>,
    owner: &'a Object,
}

impl Records<'_> {
    /// Which template has which number.
    async fn numbers(&self) -> Result<Vec<(String, i64)>> {
        let mut numbers = Vec::new();
        for record in self.api.list(&ListParams::default()).await?.items {
            let record = serde_json::to_value(record)?;
            if record["metadata"]["ownerReferences"][0]["uid"] == *self.owner.uid {
                let template = &record["data"]["spec"]["template"]["metadata"]["annotations"]["e2e"];
                let number = record["revision"].as_i64().context("no number")?;
                numbers.push((template.as_str().unwrap_or_default().to_owned(), number));
            }
        }
        numbers.sort();
        Ok(numbers)
    }
}
