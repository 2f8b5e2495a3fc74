//! `trysail-manager check`: what a manager would need, asked for one by one, with a remedy for what is missing.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use kube::{Api, Client, api::PostParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trysail_core::{Face, Resource};

use crate::{
    options::{CheckOptions, ControllerName, Selection},
    rbac::{self, Rule},
};

/// Runs every check and prints a line for each. The Lease is given by namespace and name.
pub(crate) async fn check(
    client: &Client,
    selection: &Selection,
    (namespace, lease): (&str, &str),
    options: &CheckOptions,
) -> Result<()> {
    let mut failures = Vec::new();
    let version = client.apiserver_version().await.context("the API server does not answer")?;
    report(&format!("API server {}", version.git_version), Ok(()), &mut failures);
    for resource in resources(selection) {
        report(
            &format!("{} is served", full_name(&resource)),
            served(client, &resource).await,
            &mut failures,
        );
    }
    for (rule, namespace) in rbac::cluster_rules(selection)
        .iter()
        .map(|rule| (rule, None))
        .chain(rbac::lease_rules(selection, lease).iter().map(|rule| (rule, Some(namespace))))
    {
        for verb in &rule.verbs {
            report(&may(rule, verb, namespace), allowed(client, rule, verb, namespace).await, &mut failures);
        }
    }
    if let Some(address) = &options.ready_address {
        report(&format!("http://{address}/readyz"), ready(address).await, &mut failures);
    }
    if !failures.is_empty() {
        bail!("{} of the checks failed:\n  {}", failures.len(), failures.join("\n  "));
    }
    Ok(())
}

fn report(what: &str, outcome: Result<()>, failures: &mut Vec<String>) {
    match outcome {
        Ok(()) => println!("ok      {what}"),
        Err(error) => {
            println!("FAILED  {what}: {error:#}");
            failures.push(format!("{what}: {error:#}"));
        }
    }
}

/// The kinds that the selected controllers reconcile.
pub(crate) fn resources(selection: &Selection) -> Vec<Resource> {
    let kinds = |face: Face| {
        selection.controllers.iter().map(move |controller| match controller {
            ControllerName::Deployment => Resource::deployments(face),
            ControllerName::ReplicaSet => Resource::replica_sets(face),
            ControllerName::ReplicationController => Resource::replication_controllers(face),
            ControllerName::StatefulSet => Resource::stateful_sets(face),
            ControllerName::DaemonSet => Resource::daemon_sets(face),
            ControllerName::Job | ControllerName::TtlAfterFinished => Resource::jobs(face),
            ControllerName::CronJob => Resource::cron_jobs(face),
        })
    };
    let mut resources: Vec<Resource> = selection.api.faces().iter().flat_map(|face| kinds(*face)).collect();
    resources.sort_unstable();
    resources.dedup();
    resources
}

fn full_name(resource: &Resource) -> String {
    if resource.group.is_empty() {
        resource.plural.to_owned()
    } else {
        format!("{}.{}", resource.plural, resource.group)
    }
}

async fn served(client: &Client, resource: &Resource) -> Result<()> {
    let version = resource.api_version();
    let kinds = if resource.group.is_empty() {
        client.list_core_api_resources(&version).await
    } else {
        client.list_api_group_resources(&version).await
    };
    let remedy = "install the CRDs: helm upgrade --install trysail charts/trysail-workloads";
    let kinds = kinds.with_context(|| format!("{version} is not served; {remedy}"))?;
    if !kinds.resources.iter().any(|kind| kind.name == resource.plural) {
        bail!("{version} has no {}; {remedy}", resource.plural);
    }
    Ok(())
}

fn may(rule: &Rule, verb: &str, namespace: Option<&str>) -> String {
    let group = if rule.group.is_empty() { String::new() } else { format!(".{}", rule.group) };
    let place = namespace.map(|namespace| format!(" in {namespace}")).unwrap_or_default();
    format!("may {verb} {}{group}{place}", rule.resource)
}

async fn allowed(client: &Client, rule: &Rule, verb: &str, namespace: Option<&str>) -> Result<()> {
    let (resource, subresource) = rule.resource.split_once('/').unwrap_or((&rule.resource, ""));
    let review: SelfSubjectAccessReview = serde_json::from_value(json!({"spec": {"resourceAttributes": {
        "group": rule.group, "resource": resource, "subresource": subresource, "verb": verb,
        "name": rule.name.as_deref().unwrap_or_default(), "namespace": namespace.unwrap_or_default(),
    }}}))?;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    if !answer.status.is_some_and(|status| status.allowed) {
        bail!("forbidden, but needed to {}; `trysail-manager rbac` prints the roles", rule.why);
    }
    Ok(())
}

/// Asks a manager whether it is ready.
async fn ready(address: &str) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(5);
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(LIMIT, exchange).await.context("no answer within 5 s")??;
    let status = answer.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        bail!("it answered {status:?}");
    }
    Ok(())
}
