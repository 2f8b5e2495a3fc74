//! `trysail-manager leave-pods`: the last act of an uninstall. No manager leads any more, so the finalizers by which
//! pods of Jobs wait to be counted would stay for ever; what becomes of them is decided by [`leave`].

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};
use trysail_core::{
    Face, Key, Resource,
    plan::{Action, Verb},
    pod::Pod,
    resource::PODS,
};
use trysail_sdk::client::{Class, Client, Preconditions};
use trysail_workloads::{job::leave, views::Job};

/// How long managers may take to end, and permissions that were just granted to be known.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Objects per page of a list.
const PAGE: u32 = 500;

/// Leaves every pod of our own Jobs to itself. The Lease is given by namespace and name.
pub(crate) async fn leave_pods(client: &Client, (namespace, lease): (&str, &str)) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = String::new();
    while Instant::now() < deadline {
        match attempt(client, namespace, lease).await {
            Ok(State::Done) => return Ok(()),
            Ok(State::Open(what)) => last = what,
            Err(error) => last = format!("{error:#}"),
        }
        sleep(PAUSE).await;
    }
    bail!("gave up after {PATIENCE:?}: {last}")
}

enum State {
    Done,
    /// What is in the way.
    Open(String),
}

async fn attempt(client: &Client, namespace: &str, lease: &str) -> Result<State> {
    if let Some(holder) = holder(client, namespace, lease).await? {
        return Ok(State::Open(format!("{holder} still leads; uninstall the managers first")));
    }
    let jobs = list::<Job>(client, Resource::jobs(Face::Crd)).await?;
    let jobs: HashMap<_, _> = jobs.into_iter().map(|job| (job.meta.uid.clone(), job)).collect();
    let mut left = 0;
    for pod in list::<Pod>(client, PODS).await? {
        let job = pod.meta.controller.as_ref().and_then(|uid| jobs.get(uid));
        if let Some(action) = leave(Face::Crd, &pod, job) {
            left += 1;
            write(client, &action).await?;
        }
    }
    // Whoever wrote beside us did so after we looked: another look shows that nothing is left.
    Ok(if left == 0 { State::Done } else { State::Open(format!("{left} pods had a finalizer of ours")) })
}

/// Who holds the Lease, unless it has run out.
async fn holder(client: &Client, namespace: &str, lease: &str) -> Result<Option<String>> {
    let leases: Api<Lease> = Api::namespaced(client.kube(), namespace);
    let lease = leases.get_opt(lease).await.context("failed to read the managers' Lease")?;
    let Some(spec) = lease.and_then(|lease| lease.spec) else { return Ok(None) };
    let seconds = i64::from(spec.lease_duration_seconds.unwrap_or(0));
    let ends = spec
        .renew_time
        .and_then(|renewed| renewed.0.checked_add(jiff::SignedDuration::from_secs(seconds)).ok());
    let has_run_out = ends.is_none_or(|ends| ends < jiff::Timestamp::now());
    Ok(spec.holder_identity.filter(|holder| !holder.is_empty() && !has_run_out))
}

/// All objects of a kind, in every namespace.
async fn list<T: DeserializeOwned>(client: &Client, resource: Resource) -> Result<Vec<T>> {
    let kind = ApiResource {
        group: resource.group.to_owned(),
        version: resource.version.to_owned(),
        api_version: resource.api_version(),
        kind: resource.kind.to_owned(),
        plural: resource.plural.to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.kube(), &kind);
    let mut objects = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let context = || format!("failed to list {}", resource.plural);
        let list = match api.list(&page).await {
            // Somebody removed the definition: there is no such object any more.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(objects),
            list => list.with_context(context)?,
        };
        for object in list.items {
            let object =
                serde_json::to_value(object).and_then(serde_json::from_value).with_context(context)?;
            objects.push(object);
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(objects),
        }
    }
}

/// Sends it with its preconditions. That the pod is gone or another one by now is for the next look.
async fn write(client: &Client, action: &Action) -> Result<()> {
    let Verb::Patch { subresource, body } = &action.verb else { bail!("not a patch: {action}") };
    let target = &action.target;
    let expected = Preconditions { uid: target.uid.clone(), resource_version: target.resource_version };
    let Key { namespace, name } = &target.key;
    match client
        .merge_patch(&target.resource, &target.key, *subresource, &expected.into_patch(body.clone()))
        .await
    {
        Ok(_) => {
            tracing::info!(%namespace, %name, "left to itself");
            Ok(())
        }
        Err(error) if matches!(error.class(), Class::Gone | Class::Conflict) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to patch pod {namespace}/{name}")),
    }
}
