//! `logs KIND/NAME`: of the best pod, or of all of them at once, line by line.

use anyhow::{Context as _, Result};
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _, stream::SelectAll};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use trysail_core::resource::PODS;

use crate::{
    args::Logs,
    cluster::Cluster,
    kind, pods,
    target::Target,
    text::{note, out},
};

/// Prints the logs.
pub(crate) async fn run(cluster: &Cluster, args: Logs) -> Result<()> {
    let (kind, name, _) = kind::split(&args.workload.words)?;
    let target = Target::find(cluster, kind, name).await?;
    let found = pods::of(cluster, &target).await?;
    let chosen = if args.all_pods { &found[..] } else { &found[..1] };
    if !args.all_pods && found.len() > 1 {
        let name = found[0]["metadata"]["name"].as_str().unwrap_or_default();
        note(&format!("Found {} pods, using pod/{name}", found.len()));
    }
    let mut sources = Vec::new();
    for pod in chosen {
        let pod = pods::typed(pod)?;
        let name = pod.metadata.name.clone().unwrap_or_default();
        let containers = if args.all_containers {
            pods::containers(&pod)
        } else {
            vec![pods::container(&pod, args.container.as_deref())?]
        };
        sources.extend(containers.into_iter().map(|container| (name.clone(), container)));
    }
    print(cluster, &args, sources).await
}

async fn print(cluster: &Cluster, args: &Logs, sources: Vec<(String, String)>) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(cluster.client(), &cluster.namespace);
    let (prefixed, many) = (args.prefix || args.all_pods, sources.len() > 1);
    let mut lines = SelectAll::new();
    for (pod, container) in sources {
        let stream = match api.log_stream(&pod, &params(args, &container)).await {
            Ok(stream) => stream,
            Err(error) => {
                let failure = cluster.attempt("get", PODS).name(&format!("{pod}/log")).failed(error);
                if !many {
                    return Err(failure.into());
                }
                // One pod that has not started yet must not hide what the others say.
                note(&format!("{pod}/{container}: {failure}"));
                continue;
            }
        };
        let prefix = if prefixed { format!("[pod/{pod}/{container}] ") } else { String::new() };
        let stream = stream.lines().map_ok(move |line| format!("{prefix}{line}\n"));
        if args.follow {
            lines.push(stream.boxed());
        } else {
            // In order, one after the other.
            forward(stream.boxed()).await?;
        }
    }
    forward(lines).await
}

async fn forward(mut lines: impl futures::Stream<Item = std::io::Result<String>> + Unpin) -> Result<()> {
    while let Some(line) = lines.next().await {
        out(&line.context("the log ended before its end")?)?;
    }
    Ok(())
}

fn params(args: &Logs, container: &str) -> LogParams {
    LogParams {
        container: Some(container.to_owned()),
        follow: args.follow,
        previous: args.previous,
        // Zero is no valid age for the server; the newest second is what is meant.
        since_seconds: args.since.map(|since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX).max(1)),
        tail_lines: args.tail.map(i64::from),
        timestamps: args.timestamps,
        ..LogParams::default()
    }
}
