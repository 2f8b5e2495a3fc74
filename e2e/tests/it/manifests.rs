//! A manifest of a native kind becomes ours by changing `apiVersion`: a corpus of varied ones, sent to the
//! real API server as a dry run, and malformed ones that must be refused in words that name the field.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use trysail_e2e::{TestNamespace, connect};

fn corpus(folder: &str) -> Result<Vec<(String, String)>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crds/tests").join(folder);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&root).with_context(|| format!("failed to read {}", root.display()))? {
        let path = entry?.path();
        files.push((path.display().to_string(), std::fs::read_to_string(&path)?));
    }
    files.sort();
    Ok(files)
}

fn api(client: &kube::Client, namespace: &str, object: &DynamicObject) -> Result<Api<DynamicObject>> {
    let types = object.types.as_ref().context("the manifest has no apiVersion and kind")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps.trysail.dev", "v1", &types.kind));
    Ok(Api::namespaced_with(client.clone(), namespace, &resource))
}

#[tokio::test(flavor = "multi_thread")]
async fn native_manifests_are_accepted_under_our_api_version() -> Result<()> {
    let client = connect().await?;
    let namespace = TestNamespace::create(&client, "corpus").await?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let corpus = corpus("manifests")?;
    ensure!(corpus.len() >= 90, "only {} manifests were found", corpus.len());
    for (path, text) in corpus {
        let mut object: DynamicObject = serde_json::from_value(yaml(&text).with_context(|| path.clone())?)?;
        object.metadata.namespace = None;
        if let Some(types) = object.types.as_mut() {
            types.api_version = "apps.trysail.dev/v1".to_owned();
        }
        api(&client, &namespace, &object)?.create(&dry_run, &object).await.with_context(|| path.clone())?;
    }
    namespace.delete().await
}

fn yaml(text: &str) -> Result<serde_json::Value> {
    serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{error}"))
}
