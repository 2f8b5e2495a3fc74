//! One namespace per test, so that tests run side by side and leave nothing.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};

/// A namespace that is deleted by [`TestNamespace::delete`]; a failing test leaves it for inspection, and the
/// next run of the same test makes another one.
pub struct TestNamespace {
    /// Its name.
    pub name: String,
    client: Client,
}

impl std::fmt::Debug for TestNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl std::ops::Deref for TestNamespace {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl TestNamespace {
    /// The label of all of them; its value is what they are for.
    pub const LABEL: &str = "trysail.dev/e2e";

    /// Creates `e2e-PURPOSE-…`.
    pub async fn create(client: &Client, purpose: &str) -> Result<Self> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace: Namespace = serde_json::from_value(serde_json::json!({
            "metadata": {"generateName": format!("e2e-{purpose}-"), "labels": {Self::LABEL: purpose}},
        }))?;
        let created = namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .context("failed to create a namespace")?;
        let name = created.metadata.name.context("the API server gave no name")?;
        wait_for_service_account(client, &name).await?;
        Ok(Self { name, client: client.clone() })
    }

    /// Deletes it and does not wait for its end.
    pub async fn delete(self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client);
        namespaces
            .delete(&self.name, &DeleteParams::default())
            .await
            .context("failed to delete the namespace")?;
        Ok(())
    }
}

/// Pods are refused until the namespace's default service account exists.
async fn wait_for_service_account(client: &Client, namespace: &str) -> Result<()> {
    use k8s_openapi::api::core::v1::ServiceAccount;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    // kube-controller-manager makes it, and after an outage of the API server its watches may be a minute away.
    crate::wait::until("the default service account", std::time::Duration::from_secs(120), || async {
        Ok(accounts.get_opt("default").await?.is_some())
    })
    .await
}
