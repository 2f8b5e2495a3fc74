//! `exec KIND/NAME -- COMMAND`: runs it in the best pod, with the local terminal when asked.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use futures::SinkExt as _;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api,
    api::{AttachParams, AttachedProcess, TerminalSize},
};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    signal::unix::{SignalKind, signal},
};
use trysail_core::resource::PODS;

use crate::{args::Exec, cluster::Cluster, kind, pods, target::Target, text::note};

/// Runs the command; its exit code becomes ours.
pub(crate) async fn run(cluster: &Cluster, args: Exec) -> Result<ExitCode> {
    let (kind, name, _) = kind::split(&args.workload.words)?;
    let target = Target::find(cluster, kind, name).await?;
    let found = pods::of(cluster, &target).await?;
    let (pod, typed) = pods::running(&target, &found)?;
    let container = pods::container(&typed, args.container.as_deref())?;
    let tty = args.tty && args.stdin && io::stdin().is_terminal();
    if args.tty && !tty {
        note("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let params = AttachParams {
        container: Some(container),
        stdin: args.stdin,
        stdout: true,
        // A terminal is one stream.
        stderr: !tty,
        tty,
        ..AttachParams::default()
    };
    let api: Api<Pod> = Api::namespaced(cluster.client(), &cluster.namespace);
    let process = api.exec(&pod, &args.command, &params).await;
    let process = process
        .map_err(|error| cluster.attempt("create", PODS).name(&format!("{pod}/exec")).failed(error))?;
    let raw = if tty { Some(RawTerminal::enter()?) } else { None };
    let status = converse(process, tty).await;
    drop(raw);
    exit_code(status?, &pod)
}

/// Copies between the local streams and the remote ones until the command ends.
async fn converse(mut process: AttachedProcess, tty: bool) -> Result<Option<Status>> {
    let status = process.take_status().context("the connection tells no exit status")?;
    let input = process.stdin().map(|remote| tokio::spawn(copy(tokio::io::stdin(), remote)));
    let output = process.stdout().map(|remote| tokio::spawn(copy(remote, tokio::io::stdout())));
    let errors = process.stderr().map(|remote| tokio::spawn(copy(remote, tokio::io::stderr())));
    let sizes = process.terminal_size().filter(|_| tty).map(|sizes| tokio::spawn(tell_sizes(sizes)));
    for stream in [output, errors].into_iter().flatten() {
        match stream.await? {
            // Nobody reads what the command prints any more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    let status = status.await;
    for task in [input].into_iter().flatten() {
        task.abort();
    }
    if let Some(task) = sizes {
        task.abort();
    }
    Ok(status)
}

/// Like `tokio::io::copy`, but flushing after each read: a prompt has no newline.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; 8 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            // Tells the remote command that its input has ended.
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
    }
}

async fn tell_sizes(mut sizes: futures::channel::mpsc::Sender<TerminalSize>) -> io::Result<()> {
    let mut changes = signal(SignalKind::window_change())?;
    loop {
        if let Ok(size) = termios::tcgetwinsize(io::stdout()) {
            let size = TerminalSize { width: size.ws_col, height: size.ws_row };
            if sizes.send(size).await.is_err() {
                return Ok(());
            }
        }
        changes.recv().await;
    }
}

/// The terminal passes every key on, until this is dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Result<Self> {
        let before = termios::tcgetattr(io::stdin()).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)
            .context("cannot set the terminal's mode")?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing better can be done about a terminal that has gone.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// The command's own exit code where it has one.
fn exit_code(status: Option<Status>, pod: &str) -> Result<ExitCode> {
    let Some(status) = status else {
        bail!("the connection to pod {pod} ended before the command did; is the pod still there?")
    };
    if status.status.as_deref() == Some("Success") {
        return Ok(ExitCode::SUCCESS);
    }
    let causes = status.details.into_iter().flat_map(|details| details.causes.unwrap_or_default());
    let code =
        causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode")).find_map(|cause| cause.message);
    match code.and_then(|code| code.parse::<u8>().ok()) {
        Some(code) => {
            note(&format!("command terminated with exit code {code}"));
            Ok(ExitCode::from(code))
        }
        None => bail!("{}", status.message.unwrap_or_else(|| "the command failed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(status: serde_json::Value) -> Result<ExitCode> {
        exit_code(serde_json::from_value(status).unwrap(), "web-1")
    }

    #[test]
    fn the_commands_exit_code_is_ours() {
        let same = |a: ExitCode, b: ExitCode| format!("{a:?}") == format!("{b:?}");
        assert!(same(outcome(json!({"status": "Success"})).unwrap(), ExitCode::SUCCESS));
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode",
            "message": "command terminated with non-zero exit code",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}});
        assert!(same(outcome(failed).unwrap(), ExitCode::from(3)));
        let broken = outcome(json!({"status": "Failure", "message": "executable not found"})).unwrap_err();
        assert_eq!(broken.to_string(), "executable not found");
        assert!(exit_code(None, "web-1").unwrap_err().to_string().contains("web-1"));
    }
}
