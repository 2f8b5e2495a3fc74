//! README's walk, line by line as it stands there, and what `trysail` does beside it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trysail_e2e::{
    TestNamespace, connect, program,
    shell::{self, Shell},
    wait,
    workload::{Deployment, Face, deployment},
};

const LIMIT: Duration = Duration::from_secs(90);

/// The commands of the walk after those that make kubectl and trysail known.
fn walk() -> Result<Vec<String>> {
    shell::readme("## A walk")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_of_the_readme_does_what_it_says() -> Result<()> {
    let client = connect().await?;
    let namespace = TestNamespace::create(&client, "walk").await?;
    let shell = Shell::new(&namespace)?;
    let demo = program::root().join("hack/demo/web.yaml");
    shell.succeed(&format!("kubectl apply -f {}", demo.display()))?;
    shell.succeed("kubectl wait --for=condition=Ready --timeout=90s deployments.apps.trysail.dev/web")?;

    let mut paused = false;
    for line in walk()? {
        let printed = shell.succeed(&line)?;
        let says = |text: &str| {
            ensure!(printed.contains(text), "`{line}` does not say {text:?} but:\n{printed}");
            Ok(())
        };
        let words: Vec<&str> = line.split_whitespace().take(3).collect();
        match words[..] {
            ["kubectl", "get", _] => says("web-")?,
            ["kubectl", verb @ ("scale" | "delete"), _] => says(&format!("{verb}d"))?,
            ["trysail", "rollout", "status"] => says("successfully rolled out")?,
            ["trysail", "rollout", "history"] => says("2 ")?,
            ["trysail", "rollout", "undo"] => says("rolled back")?,
            ["trysail", "rollout", verb @ ("pause" | "resume")] => {
                paused = verb == "pause";
                says(&format!("{verb}d"))?;
            }
            ["trysail", "set", "image"] => says("image updated")?,
            ["trysail", "why", _] => says("paused")?,
            _ => {}
        }
        // Somebody who types is slower than a test: each step is finished before the next.
        if !paused && !line.contains("delete") {
            shell.succeed("trysail rollout status tdeploy/web --timeout=90s")?;
        }
        if line.contains("undo") {
            let image = shell
                .succeed("kubectl get tdeploy web -o jsonpath='{.spec.template.spec.containers[0].image}'")?;
            ensure!(image == "nginx:1.27", "undoing led to {image}");
        }
    }
    wait::until("nothing to be left of the walk", LIMIT, || async {
        Ok(shell.succeed("kubectl get tdeploy,trs,pods -o name")?.is_empty())
    })
    .await?;
    namespace.delete().await
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_exec_and_port_forward_reach_the_pods() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "reach").await?;
        let shell = Shell::new(&namespace)?;
        serve(&client, &namespace, face).await?;
        let kind = if face == Face::Crd { "tdeploy" } else { "deployment.apps" };
        reach(&shell, kind).await?;
        let refused = program::end(&mut shell.command(&format!("trysail rollout undo {kind}/nothing")))?;
        ensure!(refused.code == Some(1) && refused.stderr.contains("nothing"), "{refused:?}");
        namespace.delete().await
    })
    .await
}

/// A Deployment that answers HTTP with its pod's name.
async fn serve(client: &Client, namespace: &str, face: Face) -> Result<()> {
    let mut manifest = deployment(face, "web", 2);
    manifest["spec"]["template"]["spec"]["containers"] = json!([{
        "name": "main", "image": trysail_e2e::workload::IMAGE, "args": ["netexec", "--http-port=8080"],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
    }]);
    Deployment::create(client, namespace, face, manifest).await?.wait_complete(LIMIT).await
}

async fn reach(shell: &Shell, kind: &str) -> Result<()> {
    let logs = shell.succeed(&format!("trysail logs {kind}/web --all-pods"))?;
    let pods = shell.succeed("kubectl get pods -o jsonpath='{.items[*].metadata.name}'")?;
    for pod in pods.split_whitespace() {
        ensure!(logs.contains(pod), "the logs of all pods lack those of {pod}:\n{logs}");
    }
    let exec =
        program::end(&mut shell.command(&format!("trysail exec {kind}/web -- sh -c 'hostname; exit 3'")))?;
    ensure!(exec.code == Some(3) && pods.contains(exec.stdout.trim()), "{exec:?}");

    let mut forward = Forward::start(shell, &format!("exec trysail port-forward {kind}/web :8080"))?;
    let answer = get(&forward.address()?, "/hostname").await?;
    let name = answer.lines().last().unwrap_or_default();
    ensure!(answer.starts_with("HTTP/1.1 200") && pods.contains(name) && !name.is_empty(), "{answer}");
    Ok(())
}

/// `port-forward` as long as this value lives.
struct Forward(Child);

impl Forward {
    fn start(shell: &Shell, line: &str) -> Result<Self> {
        Ok(Self(shell.command(line).stdout(Stdio::piped()).spawn()?))
    }

    /// `Forwarding from ADDRESS -> PORT`
    fn address(&mut self) -> Result<String> {
        let output = self.0.stdout.as_mut().context("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        line.split(' ').nth(2).map(str::to_owned).with_context(|| format!("port-forward says {line:?}"))
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.context("no answer")??;
    Ok(answer)
}

#[test]
fn the_readme_has_a_walk() -> Result<()> {
    let lines = walk()?;
    for step in ["scale", "set image", "status", "undo", "pause", "why", "resume", "delete"] {
        ensure!(lines.iter().any(|line| line.contains(step)), "the walk does not {step}: {lines:?}");
    }
    ensure!(Path::new(&program::root().join("hack/demo/web.yaml")).exists(), "the demo is missing");
    Ok(())
}
