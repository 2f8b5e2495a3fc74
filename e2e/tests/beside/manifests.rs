//! The manifests that the README tries out, with the commands that stand there, do what a user expects of them.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use trysail_e2e::{
    TestNamespace, connect,
    history::{Entry, History, created},
    program, promises,
    shell::{self, Shell},
    wait,
};

const LIMIT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn the_other_kinds_of_the_readme_do_what_it_says() -> Result<()> {
    let client = connect().await?;
    let namespace = TestNamespace::create(&client, "manifests").await?;
    let shell = Shell::new(&namespace)?;
    let kinds = [("v1", "Pod"), ("batch.trysail.dev/v1", "Job")];
    let history = History::start(&client, &namespace, &kinds).await;
    for line in shell::readme("### The other kinds")? {
        // All is as it should be before it goes.
        if line.starts_with("kubectl delete") {
            members_have_their_names(&client, &namespace).await?;
            every_node_has_its_agent(&client, &namespace).await?;
        }
        let printed = shell.succeed(&line)?;
        let says = |text: &str| {
            ensure!(printed.contains(text), "`{line}` does not say {text:?} but:\n{printed}");
            Ok(())
        };
        let words: Vec<&str> = line.split_whitespace().take(3).collect();
        match words[..] {
            ["kubectl", "apply", _] => {
                ["etcd", "node-agent", "render", "backup"].into_iter().try_for_each(says)?
            }
            ["kubectl", "get", "tsts,tds,tjob,tcj"] => says("Europe/Berlin")?,
            ["kubectl", "get", "tjob/render"] => says("0-11")?,
            ["kubectl", "wait", _] => says("condition met")?,
            ["kubectl", verb @ ("patch" | "delete"), _] => says(verb.trim_end_matches('e'))?,
            ["trysail", "rollout", "status"] => says("successfully rolled out")?,
            ["trysail", "rollout", "restart"] => says("restarted")?,
            ["trysail", "rollout", "history"] => says("2 ")?,
            _ => {}
        }
    }
    wait::until("nothing to be left of it", LIMIT, || async {
        Ok(shell.succeed("kubectl get tsts,tds,tjob,tcj,pods -o name")?.is_empty())
    })
    .await?;
    judge(&history.finish().await?)?;
    namespace.delete().await
}

fn judge(entries: &[Entry]) -> Result<()> {
    promises::one_pod_per_ordinal(entries, "etcd", 3)?;
    promises::counted_once(entries, "render", 12)?;
    ensure!(promises::one_job_a_minute(entries, "backup")? > 0, "no minute had its run");
    let agents = created(entries, |entry| entry.kind == "Pod" && entry.is_of("node-agent"));
    ensure!(agents.len() % 2 == 0, "{} agents were made in two revisions", agents.len());
    Ok(())
}

async fn pods_of(client: &Client, namespace: &str, app: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Ok(pods.list(&ListParams::default().labels(&format!("app={app}"))).await?.items)
}

/// Names, ordinals and host names of the members; no claim was asked for, and none was made.
async fn members_have_their_names(client: &Client, namespace: &str) -> Result<()> {
    let members = pods_of(client, namespace, "etcd").await?;
    let seen: BTreeSet<(String, String, String)> = members
        .iter()
        .map(|pod| {
            let index = pod.labels().get("apps.kubernetes.io/pod-index").cloned().unwrap_or_default();
            let spec = pod.spec.clone().unwrap_or_default();
            let host = [spec.hostname, spec.subdomain].map(Option::unwrap_or_default).join(".");
            (pod.name_any(), index, host)
        })
        .collect();
    let wanted = (0..3).map(|at| (format!("etcd-{at}"), at.to_string(), format!("etcd-{at}.etcd"))).collect();
    ensure!(seen == wanted, "the members are {seen:?}");
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    ensure!(claims.list(&ListParams::default()).await?.items.is_empty(), "a claim was made");
    Ok(())
}

async fn every_node_has_its_agent(client: &Client, namespace: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await?.items;
    let mut nodes: Vec<String> = nodes.iter().map(ResourceExt::name_any).collect();
    let agents = pods_of(client, namespace, "node-agent").await?;
    let mut places: Vec<String> =
        agents.into_iter().filter_map(|pod| pod.spec.and_then(|spec| spec.node_name)).collect();
    nodes.sort();
    places.sort();
    ensure!(nodes == places, "agents are on {places:?}, the nodes are {nodes:?}");
    Ok(())
}

#[test]
fn the_readme_links_every_manifest() -> Result<()> {
    let readme = std::fs::read_to_string(program::root().join("README.md"))?;
    for entry in std::fs::read_dir(program::root().join("e2e/manifests"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(readme.contains(&format!("](e2e/manifests/{name})")), "README.md has no link to {name}");
    }
    let lines = shell::readme("### The other kinds")?;
    for step in ["apply", "Ready", "rollout status", "Complete", "patch", "delete"] {
        ensure!(lines.iter().any(|line| line.contains(step)), "the walk does not {step}: {lines:?}");
    }
    Ok(())
}
