//! Every ConfigMap labelled `seal` gets a Secret of the same name and content, kept as it should be.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Error, Resource, ResourceExt, api::Patch, api::PatchParams};
use trysail_sdk::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    logging::init(2, LogFormat::Text)?;
    let controller = Controller::new("seal").for_kind::<ConfigMap>().owns::<Secret>().reconcile(seal);
    Ok(Manager::builder("seal-operator").controller(controller).run().await?)
}

async fn seal(request: Request<ConfigMap>) -> Result<Outcome, Error> {
    let Some(map) = request.object.filter(|map| map.labels().contains_key("seal")) else {
        return Ok(Outcome::Done);
    };
    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": map.data,
        "metadata": {"name": map.name_any(), "ownerReferences": [map.controller_owner_ref(&())]},
    });
    let secrets: Api<Secret> = Api::namespaced(request.client, &request.key.namespace);
    secrets.patch(&map.name_any(), &PatchParams::apply("seal"), &Patch::Apply(secret)).await?;
    Ok(Outcome::Done)
}
