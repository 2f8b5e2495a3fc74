//! Transcripts: commands and what they led to, kept as text. A line that starts with `$ ` is a command, `#` a
//! comment; what follows a command is its output, which [`replay`] computes anew.
//!
//! ```text
//! $ face crd|native                before anything else
//! $ deployment|replicaset|controller|statefulset|daemonset|job|cronjob NAME key=value…
//!                                  creates one; the keys are in create.rs. A key with a dot is a path in the spec:
//!                                  template.spec.nodeSelector={"disk":"ssd"}; `_` in schedule= is a space
//! $ pod NAME APP                   a pod without a controller, labelled app=APP
//! $ claim NAME                     a PersistentVolumeClaim without an owner
//! $ scale KIND/NAME N              $ image KIND/NAME IMAGE     $ patch KIND/NAME JSON
//! $ pause NAME / $ resume NAME     $ undo NAME [REVISION]      $ annotate KIND/NAME KEY VALUE
//! $ suspend KIND/NAME / $ unsuspend KIND/NAME
//!
//! $ tick [N]                       a second passes: scheduler, kubelets, collector, then the controllers
//! $ pass SECONDS / $ at TIME       the same with one jump in time (RFC 3339 for `at`)
//! $ settle                         the controllers alone
//!
//! $ ready|unready POD, $ fail POD, $ relabel POD APP, $ cost POD N, $ manual (pods get ready by hand only)
//! $ exit POD CODE, $ evict POD, $ force POD (deleted at once), $ broken IMAGE, $ grace TICKS
//! $ exits IMAGE CODE [TICKS]       containers of that image end by themselves
//! $ node NAME [label=value…], $ down|up|remove-node NODE, $ cordon|uncordon NODE
//! $ taint NODE KEY[=VALUE]:EFFECT / $ untaint NODE KEY, $ label NODE KEY [VALUE]
//!
//! $ delete KIND/NAME, $ orphan KIND/NAME, $ foreground KIND/NAME
//! $ quota N|off                    $ deny VERB PLURAL MESSAGE / $ allow VERB PLURAL
//! $ lag N [KIND], $ crash [ACTIONS], $ lose [ACTIONS]   faults: late views, a crash or a lost reply
//! $ miss KIND N, $ repeat KIND N, $ relist [KIND]       events that never arrive before a list, or twice
//! $ show, $ status KIND/NAME, $ why, $ spread            the last: how pods are spread
//! ```
//!
//! Pods are named by their place: `web#2` is the second oldest living pod whose name starts with `web-`, `web#*`
//! all of them. So are other objects: `job/tick@1`. A name without a kind is a Deployment's.

mod create;
mod show;
mod verbs;

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use trysail_core::{
    Face, Key, Resource,
    resource::{CONTROLLER_REVISIONS, NODES, PERSISTENT_VOLUME_CLAIMS, PODS},
};

use crate::{cluster::Cluster, fixtures::NAMESPACE, manager::Manager};

/// Runs the commands of a transcript and answers it with its outputs as they are now.
pub fn replay(transcript: &str) -> String {
    let mut stage = Stage::new();
    let mut text = String::new();
    for line in transcript.lines() {
        if line.starts_with('#') || line.is_empty() {
            text.push_str(line);
            text.push('\n');
        } else if let Some(command) = line.strip_prefix("$ ") {
            let output = stage.run(command).unwrap_or_else(|problem| format!("error: {problem}\n"));
            let _ = write!(text, "$ {command}\n{}", fold(&output));
        }
    }
    text
}

/// A refusal is tried again within milliseconds at first: repeated lines are counted.
fn fold(output: &str) -> String {
    let repeats = |line: &str| line.starts_with("  refused ") || line.starts_with("  event Warning ");
    let mut folded: Vec<(&str, usize)> = Vec::new();
    for line in output.lines() {
        match folded.iter_mut().find(|(earlier, _)| *earlier == line && repeats(line)) {
            Some((_, times)) => *times += 1,
            None => folded.push((line, 1)),
        }
    }
    let lines = folded.into_iter().map(|(line, times)| match times {
        1 => format!("{line}\n"),
        _ => format!("{line} ({times} times)\n"),
    });
    lines.collect()
}

struct Stage {
    face: Face,
    cluster: Cluster,
    manager: Manager,
}

type Output = Result<String, String>;

impl Stage {
    fn new() -> Self {
        let cluster = Cluster::default();
        let manager = Manager::start(Face::Crd, &cluster);
        Self { face: Face::Crd, cluster, manager }
    }

    fn run(&mut self, command: &str) -> Output {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (verb, rest) = words.split_first().ok_or("an empty command")?;
        match *verb {
            "deployment" | "replicaset" | "controller" | "statefulset" | "daemonset" | "job" | "cronjob"
            | "pod" | "claim" => self.create(verb, rest)?,
            "face" => self.set_face(rest)?,
            "tick" => return Ok(self.tick(number(rest, 0).unwrap_or(1))),
            "pass" | "at" => return self.jump(verb, word(rest, 0)?),
            "settle" => return Ok(self.settle()),
            "show" => return Ok(self.show()),
            "spread" => return Ok(self.spread()),
            "status" => return self.status(word(rest, 0)?),
            "why" => return Ok(self.why()),
            "ready" | "unready" | "fail" | "relabel" | "cost" | "exit" | "evict" | "force" => {
                self.pod_command(verb, rest)?;
            }
            "node" | "down" | "up" | "remove-node" | "cordon" | "uncordon" | "taint" | "untaint"
            | "label" => {
                self.node_command(verb, rest)?;
            }
            "delete" | "orphan" | "foreground" => self.delete(verb, word(rest, 0)?)?,
            "crash" | "lose" | "lag" | "miss" | "repeat" | "relist" => self.fault(verb, rest)?,
            "quota" | "deny" | "allow" | "broken" | "manual" | "grace" | "stamp" | "exits" => {
                self.policy(verb, rest)?;
            }
            _ => self.edit(verb, rest)?,
        }
        Ok(String::new())
    }

    fn set_face(&mut self, rest: &[&str]) -> Result<(), String> {
        self.face = match word(rest, 0)? {
            "crd" => Face::Crd,
            "native" => Face::Native,
            other => return Err(format!("unknown face {other}")),
        };
        self.manager = Manager::start(self.face, &self.cluster);
        Ok(())
    }

    fn tick(&mut self, ticks: usize) -> String {
        let mut output = String::new();
        for _ in 0..ticks {
            self.cluster.advance(SignedDuration::from_secs(1));
            self.cluster.actors();
            output.push_str(&self.settle());
        }
        output
    }

    fn jump(&mut self, verb: &str, to: &str) -> Output {
        let to = if verb == "at" {
            to.parse::<Timestamp>().map_err(|error| error.to_string())?
        } else {
            let seconds: i64 = to.parse().map_err(|_| format!("{to} is no number of seconds"))?;
            self.cluster.now + SignedDuration::from_secs(seconds)
        };
        if to < self.cluster.now {
            return Err(format!("it is {} already", self.cluster.now));
        }
        self.cluster.now = to;
        self.cluster.actors();
        Ok(self.settle())
    }

    fn settle(&mut self) -> String {
        let settled = self.manager.settle(&mut self.cluster);
        let mut output = self.journal();
        if !settled {
            output.push_str("  does not settle\n");
        }
        for violation in self.cluster.invariants.violations() {
            let _ = writeln!(output, "  VIOLATION {violation}");
        }
        output
    }

    fn journal(&mut self) -> String {
        let lines = std::mem::take(&mut self.manager.journal);
        lines.iter().fold(String::new(), |text, line| text + "  " + &shorten(line) + "\n")
    }

    fn why(&mut self) -> String {
        let plans = self.manager.why(&self.cluster);
        let mut text = String::new();
        for (key, plan) in plans {
            let _ = writeln!(text, "  {}:", shorten(&key.to_string()));
            for line in plan.lines() {
                let _ = writeln!(text, "    {}", shorten(line));
            }
        }
        text
    }

    fn resource(&self, kind: &str) -> Result<Resource, String> {
        match kind {
            "deployment" => Ok(Resource::deployments(self.face)),
            "replicaset" => Ok(Resource::replica_sets(self.face)),
            "controller" => Ok(Resource::replication_controllers(self.face)),
            "statefulset" => Ok(Resource::stateful_sets(self.face)),
            "daemonset" => Ok(Resource::daemon_sets(self.face)),
            "job" => Ok(Resource::jobs(self.face)),
            "cronjob" => Ok(Resource::cron_jobs(self.face)),
            "revision" => Ok(CONTROLLER_REVISIONS),
            "claim" => Ok(PERSISTENT_VOLUME_CLAIMS),
            "node" => Ok(NODES),
            "pod" => Ok(PODS),
            _ => Err(format!("unknown kind {kind}")),
        }
    }

    /// `KIND/NAME`, or a Deployment's name. A ReplicaSet may be named `web@2`: the second oldest of `web`.
    fn target(&self, text: &str) -> Result<(Resource, Key), String> {
        let (kind, name) = text.split_once('/').unwrap_or(("deployment", text));
        let resource = self.resource(kind)?;
        let Some((prefix, place)) = name.split_once('@') else {
            let namespace = if resource == NODES { "" } else { NAMESPACE };
            return Ok((resource, Key::new(namespace, name)));
        };
        let place: usize = place.parse().map_err(|_| format!("{text}: not a place"))?;
        let found = self.by_age(resource, prefix);
        let key = place.checked_sub(1).and_then(|place| found.get(place));
        key.map(|key| (resource, key.clone())).ok_or_else(|| format!("no {text}"))
    }

    /// `web#2`, `web#*` or a pod's name.
    fn pods(&self, text: &str) -> Result<Vec<Key>, String> {
        let Some((prefix, place)) = text.split_once('#') else { return Ok(vec![Key::new(NAMESPACE, text)]) };
        let found = self.by_age(PODS, prefix);
        if place == "*" {
            return Ok(found);
        }
        let place: usize = place.parse().map_err(|_| format!("{text}: not a place"))?;
        let key = place.checked_sub(1).and_then(|place| found.get(place));
        key.map(|key| vec![key.clone()]).ok_or_else(|| format!("no {text}"))
    }

    fn by_age(&self, resource: Resource, prefix: &str) -> Vec<Key> {
        let mut found: Vec<_> = self
            .cluster
            .list(resource)
            .into_iter()
            .filter(|object| object["metadata"]["deletionTimestamp"].is_null())
            .filter(|object| {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'))
            })
            .collect();
        // Uids are counted up.
        found.sort_by_key(|object| object["metadata"]["uid"].to_string());
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        found.iter().map(|object| Key::new(NAMESPACE, name(object).as_str())).collect()
    }
}

/// No namespace: transcripts are for people.
fn shorten(line: &str) -> String {
    line.replace(&format!("{NAMESPACE}/"), "")
}

fn word<'a>(words: &[&'a str], at: usize) -> Result<&'a str, String> {
    words.get(at).copied().ok_or_else(|| "a word is missing".to_owned())
}

fn number(words: &[&str], at: usize) -> Option<usize> {
    words.get(at)?.parse().ok()
}
