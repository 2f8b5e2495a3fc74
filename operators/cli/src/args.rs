//! The command line.

use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{cluster::Connection, target::DryRun};

/// For Trysail's workload kinds what kubectl does for the built-in ones, and why a workload is where it is
///
/// KIND is tdeploy, trs or trc for the kinds of apps.trysail.dev; deployment.apps, replicaset.apps or
/// replicationcontroller.core for the built-in ones; deployment (deploy), replicaset (rs) or replicationcontroller
/// (rc) for whichever of the two has an object of that name.
///
/// As a kubectl plugin: link this program as `kubectl-trysail` into a directory of PATH, then `kubectl trysail …`.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Watch, list, undo, pause, resume and restart rollouts
    #[command(subcommand)]
    Rollout(Rollout),
    /// Change a field of a workload
    #[command(subcommand)]
    Set(Set),
    /// Print the logs of a workload's pods
    Logs(Logs),
    /// Run a command in a pod of a workload
    Exec(Exec),
    /// Forward local ports to a pod of a workload
    PortForward(PortForward),
    /// Tell what a workload waits for, and what its controller would do now
    Why(Why),
    /// Cordon a node and evict its pods; those of DaemonSets, Trysail's and the built-in ones, stay
    Drain(Drain),
    /// Remove what `helm uninstall` leaves: finalizers, objects and CustomResourceDefinitions
    Uninstall(Uninstall),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Wait until a rollout is complete, telling its progress
    Status(Status),
    /// List the revisions of a workload
    History(History),
    /// Go back to a former revision
    Undo(Undo),
    /// Hold back new rollouts
    Pause(Change),
    /// Let rollouts happen again
    Resume(Change),
    /// Replace every pod, as a rollout
    Restart(Change),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Set {
    /// Change images of a workload's containers
    Image(Image),
}

/// The workload that a command is about.
#[derive(Debug, Args)]
pub(crate) struct Workload {
    /// The workload, as KIND/NAME or KIND NAME
    #[arg(required = true, num_args = 1..=2, value_name = "KIND/NAME")]
    pub(crate) words: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// One JSON document; `rollout status` prints one per line and change
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) workload: Workload,
    /// Watch until it is done; with =false, tell how it stands and return
    #[arg(short, long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) watch: bool,
    /// Fail unless this is the running revision
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) revision: i64,
    /// Give up after this time, such as 90s or 5m; 0 means never
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// For machines
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    #[command(flatten)]
    pub(crate) workload: Workload,
    /// Show the pod template of this revision
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) revision: i64,
    /// For machines
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, Args)]
pub(crate) struct Undo {
    #[command(flatten)]
    pub(crate) change: Change,
    /// The revision to go back to [default: the one before the running one]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) to_revision: i64,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    pub(crate) workload: Workload,
    #[command(flatten)]
    pub(crate) dry_run: DryRunArg,
}

#[derive(Debug, Args)]
pub(crate) struct DryRunArg {
    /// Do not really change anything
    #[arg(long = "dry-run", value_name = "STRATEGY", default_value = "none", num_args = 0..=1,
          default_missing_value = "client", require_equals = true)]
    pub(crate) strategy: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct Image {
    /// The workload and the new images: KIND/NAME CONTAINER=IMAGE…; the container * means all of them
    #[arg(required = true, value_name = "KIND/NAME CONTAINER=IMAGE")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) dry_run: DryRunArg,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) workload: Workload,
    /// Go on printing what is logged
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Of every pod, each line with its origin
    #[arg(long)]
    pub(crate) all_pods: bool,
    /// Of every container
    #[arg(long, conflicts_with = "container")]
    pub(crate) all_containers: bool,
    /// Of this container
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// Of the container's previous run
    #[arg(short, long)]
    pub(crate) previous: bool,
    /// Start each line with its pod and container
    #[arg(long)]
    pub(crate) prefix: bool,
    /// Start each line with its time
    #[arg(long)]
    pub(crate) timestamps: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u32>,
    /// Only what is newer than this, such as 5s, 2m or 3h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) since: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) workload: Workload,
    /// In this container
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// With a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// The command and its arguments, after --
    #[arg(required = true, last = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PortForward {
    /// The workload and the ports: KIND/NAME [LOCAL:]REMOTE…; :REMOTE takes any free local port
    #[arg(required = true, value_name = "KIND/NAME [LOCAL:]REMOTE")]
    pub(crate) words: Vec<String>,
    /// Local addresses to listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", value_delimiter = ',')]
    pub(crate) address: Vec<std::net::IpAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Why {
    #[command(flatten)]
    pub(crate) workload: Workload,
    /// For machines
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The node
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// Evict pods that no controller will make again, too
    #[arg(long)]
    pub(crate) force: bool,
    /// Evict pods with emptyDir volumes, too: what is in them is lost
    #[arg(long)]
    pub(crate) delete_emptydir_data: bool,
    /// Seconds that each pod is given to end [default: its own]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) grace_period: Option<u32>,
    /// Give up after this time, such as 90s or 5m; 0 means never
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Tell what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub(crate) struct Uninstall {
    /// Remove the objects of Trysail's kinds and the CustomResourceDefinitions; without it, only tell what there is
    #[arg(long)]
    pub(crate) purge: bool,
    /// Leave the pods running, owned by nobody
    #[arg(long, conflicts_with = "delete_pods", requires = "purge")]
    pub(crate) orphan_pods: bool,
    /// Delete the pods with the workloads that own them
    #[arg(long, requires = "purge")]
    pub(crate) delete_pods: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Tell what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long each step may take
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// `90s`, `1m30s`, `0`: Go's spelling, which kubectl's users know.
fn duration(text: &str) -> Result<Duration> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed: Option<jiff::SignedDuration> = text.parse().ok();
    let parsed = parsed.and_then(|duration| Duration::try_from(duration).ok());
    parsed.ok_or_else(|| anyhow!("\"{text}\" is no duration; write for example 90s, 5m or 1h30m"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_help_is_this() {
        fn collect(command: &mut clap::Command, path: &str, text: &mut String) {
            let help = command.render_long_help().to_string();
            text.extend(["===== ", path, "\n", &help, "\n"]);
            let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
            for name in names.iter().filter(|name| *name != "help") {
                if let Some(sub) = command.find_subcommand_mut(name) {
                    collect(sub, &format!("{path} {name}"), text);
                }
            }
        }
        let mut command = Cli::command().name("trysail").version("0.0.0").term_width(100);
        command.build();
        let mut text = String::new();
        collect(&mut command, "trysail", &mut text);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn flags_are_kubectls() {
        let parse = |text: &str| Cli::try_parse_from(text.split(' '));
        for (text, watch) in [("", true), (" --watch", true), (" --watch=false", false), (" -w=false", false)]
        {
            let cli = parse(&format!("trysail rollout status tdeploy/web{text} -n shop")).unwrap();
            assert_eq!(cli.connection.namespace.as_deref(), Some("shop"));
            let Verb::Rollout(Rollout::Status(status)) = cli.verb else { panic!("{text}") };
            assert_eq!(status.watch, watch, "{text}");
        }
        for bad in [
            "trysail rollout status",
            "trysail rollout undo tdeploy/web --to-revision=-1",
            "trysail exec tdeploy/web",
            "trysail uninstall --purge --orphan-pods --delete-pods",
            "trysail rollout status tdeploy/web --timeout=5",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let cli = parse("trysail exec -it tdeploy/web -c c -- sh -c true").unwrap();
        let Verb::Exec(exec) = cli.verb else { panic!() };
        assert!(exec.stdin && exec.tty && exec.command == ["sh", "-c", "true"]);
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        for bad in ["", "5", "-5s", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
