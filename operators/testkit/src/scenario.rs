//! Transcripts: commands and what they led to, kept as text. A line that starts with `$ ` is a command, `#` a
//! comment; what follows a command is its output, which [`replay`] computes anew.
//!
//! ```text
//! $ deployment NAME key=value…     create one: replicas image surge unavailable min-ready history deadline
//!                                  strategy paused (=true)
//! $ replicaset NAME key=value…     likewise: replicas image min-ready
//! $ controller NAME key=value…     a ReplicationController
//! $ pod NAME APP                   a pod without a controller, labelled app=APP
//! $ scale KIND/NAME N              $ image NAME IMAGE          $ patch KIND/NAME JSON
//! $ pause NAME / $ resume NAME     $ undo NAME [REVISION]      $ annotate KIND/NAME KEY VALUE
//! $ tick [N]                       a second passes: scheduler, kubelets, collector, then the controllers
//! $ settle                         the controllers alone
//! $ ready|unready POD, $ fail POD, $ relabel POD APP, $ cost POD N, $ manual (pods get ready by hand only)
//! $ delete KIND/NAME, $ orphan KIND/NAME, $ broken IMAGE, $ grace TICKS
//! $ quota N|off                    $ deny VERB PLURAL MESSAGE / $ allow VERB PLURAL
//! $ lag N, $ crash [ACTIONS], $ lose [ACTIONS]   faults: late views, a crash or a lost reply
//! $ face crd|native                before anything else
//! $ show, $ status KIND/NAME, $ why
//! ```
//!
//! Pods are named by their place: `web#2` is the second oldest living pod whose name starts with `web-`.

use std::fmt::Write as _;

use jiff::SignedDuration;
use serde_json::{Value, json};
use trysail_core::{Face, Key, Resource, resource::PODS};

use crate::{
    cluster::{Cluster, Writer},
    fixtures::{self, NAMESPACE},
    manager::Manager,
};

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
            "deployment" | "replicaset" | "controller" | "pod" => self.create(verb, rest)?,
            "face" => self.set_face(rest)?,
            "tick" => return Ok(self.tick(number(rest, 0).unwrap_or(1))),
            "settle" => return Ok(self.settle()),
            "show" => return Ok(self.show()),
            "status" => return self.status(word(rest, 0)?),
            "why" => return Ok(self.why()),
            "ready" | "unready" | "fail" | "relabel" | "cost" => self.pod_command(verb, rest)?,
            "delete" | "orphan" => self.delete(verb, word(rest, 0)?)?,
            "crash" | "lose" | "lag" => self.fault(verb, rest),
            "quota" | "deny" | "allow" | "broken" | "manual" | "grace" | "stamp" => {
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

    fn create(&mut self, kind: &str, rest: &[&str]) -> Result<(), String> {
        let name = word(rest, 0)?;
        if kind == "pod" {
            return self.store(PODS, fixtures::pod(name, word(rest, 1)?));
        }
        let (resource, mut object) = match kind {
            "deployment" => (self.resource("deployment")?, fixtures::deployment(self.face, name, 1, "v1")),
            "replicaset" => (self.resource("replicaset")?, fixtures::replica_set(self.face, name, 1, "v1")),
            _ => (self.resource("controller")?, fixtures::replication_controller(self.face, name, 1, "v1")),
        };
        let spec = &mut object["spec"];
        for option in &rest[1..] {
            let (key, value) = option.split_once('=').ok_or_else(|| format!("{option} is not key=value"))?;
            let parsed: Value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            match key {
                "replicas" => spec["replicas"] = parsed,
                "image" => spec["template"]["spec"]["containers"][0]["image"] = value.into(),
                "min-ready" => spec["minReadySeconds"] = parsed,
                "surge" => spec["strategy"]["rollingUpdate"]["maxSurge"] = parsed,
                "unavailable" => spec["strategy"]["rollingUpdate"]["maxUnavailable"] = parsed,
                "strategy" => spec["strategy"]["type"] = parsed,
                "history" => spec["revisionHistoryLimit"] = parsed,
                "deadline" => spec["progressDeadlineSeconds"] = parsed,
                "paused" => spec["paused"] = parsed,
                _ => return Err(format!("unknown option {key}")),
            }
        }
        self.store(resource, object)
    }

    fn store(&mut self, resource: Resource, object: Value) -> Result<(), String> {
        self.cluster.create(resource, object, Writer::Other).map_err(|error| format!("{error:?}"))?;
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

    fn show(&self) -> String {
        let mut text = String::new();
        let [deployments, sets, controllers] = Cluster::resources(self.face);
        for resource in [deployments, sets, controllers] {
            for object in self.cluster.list(resource) {
                text.push_str(&owner_line(resource, &object));
            }
        }
        for pod in self.cluster.list(PODS) {
            text.push_str(&pod_line(&pod));
        }
        text
    }

    fn status(&self, target: &str) -> Output {
        let (resource, key) = self.target(target)?;
        let object = self.cluster.get(resource, &key).ok_or_else(|| format!("no {target}"))?;
        let mut text = String::new();
        let status = object["status"].as_object().cloned().unwrap_or_default();
        for (name, value) in status.iter().filter(|(name, _)| *name != "conditions") {
            let _ = writeln!(text, "  {name}: {value}");
        }
        for condition in status.get("conditions").and_then(Value::as_array).into_iter().flatten() {
            let field = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
            let (kind, state, reason) = (field("type"), field("status"), field("reason"));
            let times = [field("lastUpdateTime"), field("lastTransitionTime")];
            let clock: Vec<&str> =
                times.iter().filter(|time| !time.is_empty()).map(|time| &time[11..19]).collect();
            let message = field("message");
            let _ = writeln!(text, "  {kind}={state} {reason}: {message} [{}]", clock.join(" "));
        }
        Ok(text)
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

    fn pod_command(&mut self, verb: &str, rest: &[&str]) -> Result<(), String> {
        for key in self.pods(word(rest, 0)?)? {
            match verb {
                "ready" => self.cluster.make_ready(&key, true),
                "unready" => self.cluster.make_ready(&key, false),
                "fail" => self.cluster.finish(&key, "Failed"),
                "relabel" => {
                    let patch = json!({"metadata": {"labels": {"app": word(rest, 1)?}}});
                    self.patch(PODS, &key, &patch)?;
                }
                _ => {
                    let cost = json!({"controller.kubernetes.io/pod-deletion-cost": word(rest, 1)?});
                    self.patch(PODS, &key, &json!({"metadata": {"annotations": cost}}))?;
                }
            }
        }
        Ok(())
    }

    fn delete(&mut self, verb: &str, target: &str) -> Result<(), String> {
        let targets = if target.contains('#') {
            self.pods(target)?.into_iter().map(|key| (PODS, key)).collect()
        } else {
            vec![self.target(target)?]
        };
        for (resource, key) in targets {
            if verb == "orphan" {
                self.cluster.delete_and_orphan(resource, &key);
            } else {
                let deleted = self.cluster.delete(resource, &key, None, Writer::Other);
                deleted.map_err(|error| format!("{error:?}"))?;
            }
        }
        Ok(())
    }

    fn fault(&mut self, verb: &str, rest: &[&str]) {
        let after = number(rest, 0);
        match (verb, after) {
            ("lag", events) => self.manager.set_lag(events.unwrap_or(0)),
            ("lose", after) => self.manager.faults.lose_reply_after = Some(after.unwrap_or(0) as u32),
            (_, None) => self.manager.crash(&self.cluster),
            (_, Some(after)) => self.manager.faults.crash_after = Some(after as u32),
        }
    }

    fn policy(&mut self, verb: &str, rest: &[&str]) -> Result<(), String> {
        let policy = &mut self.cluster.policy;
        let static_verb = |text: &str| ["create", "update", "delete"].into_iter().find(|verb| *verb == text);
        match verb {
            "quota" => policy.pod_quota = number(rest, 0),
            "deny" | "allow" => {
                let on = static_verb(word(rest, 0)?).ok_or("deny or allow what?")?;
                let id = (on, word(rest, 1)?.to_owned());
                if verb == "deny" {
                    policy.deny.insert(id, rest[2..].join(" "));
                } else {
                    policy.deny.remove(&id);
                }
            }
            "stamp" => policy.stamp_templates = Some((word(rest, 0)?.to_owned(), word(rest, 1)?.to_owned())),
            "broken" => drop(self.cluster.kubelet.broken_images.insert(word(rest, 0)?.to_owned())),
            "manual" => self.cluster.kubelet.ready_after = None,
            _ => self.cluster.kubelet.terminate_after = number(rest, 0).unwrap_or(1) as u32,
        }
        Ok(())
    }

    fn edit(&mut self, verb: &str, rest: &[&str]) -> Result<(), String> {
        const ROLLBACK: &str = "deprecated.deployment.rollback.to";
        let target = word(rest, 0)?;
        let patch = match verb {
            "scale" => json!({"spec": {"replicas": number(rest, 1).ok_or("scale to what?")?}}),
            "pause" => json!({"spec": {"paused": true}}),
            "resume" => json!({"spec": {"paused": false}}),
            "undo" => json!({"metadata": {"annotations": {ROLLBACK: rest.get(1).unwrap_or(&"0")}}}),
            "annotate" => {
                let value = rest.get(2).map_or(Value::Null, |value| (*value).into());
                json!({"metadata": {"annotations": {word(rest, 1)?: value}}})
            }
            "image" => {
                let image = word(rest, 1)?;
                json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}})
            }
            "patch" => serde_json::from_str(&rest[1..].join(" ")).map_err(|error| error.to_string())?,
            _ => return Err(format!("unknown command {verb}")),
        };
        let (resource, key) = self.target(target)?;
        let subresource = patch.get("status").is_some().then_some("status");
        let patched = self.cluster.patch(resource, &key, (None, 0), subresource, &patch, Writer::Other);
        patched.map(drop).map_err(|error| format!("{error:?}"))
    }

    fn patch(&mut self, resource: Resource, key: &Key, patch: &Value) -> Result<(), String> {
        let patched = self.cluster.patch(resource, key, (None, 0), None, patch, Writer::Other);
        patched.map(drop).map_err(|error| format!("{error:?}"))
    }

    fn resource(&self, kind: &str) -> Result<Resource, String> {
        let [deployments, sets, controllers] = Cluster::resources(self.face);
        match kind {
            "deployment" => Ok(deployments),
            "replicaset" => Ok(sets),
            "controller" => Ok(controllers),
            "pod" => Ok(PODS),
            _ => Err(format!("unknown kind {kind}")),
        }
    }

    /// `KIND/NAME`, or a Deployment's name. A ReplicaSet may be named `web@2`: the second oldest of `web`.
    fn target(&self, text: &str) -> Result<(Resource, Key), String> {
        let (kind, name) = text.split_once('/').unwrap_or(("deployment", text));
        let resource = self.resource(kind)?;
        let Some((prefix, place)) = name.split_once('@') else {
            return Ok((resource, Key::new(NAMESPACE, name)));
        };
        let place: usize = place.parse().map_err(|_| format!("{text}: not a place"))?;
        let found = self.by_age(resource, prefix);
        found.get(place - 1).map(|key| (resource, key.clone())).ok_or_else(|| format!("no {text}"))
    }

    /// `web#2`, `web#*` or a pod's name.
    fn pods(&self, text: &str) -> Result<Vec<Key>, String> {
        let Some((prefix, place)) = text.split_once('#') else { return Ok(vec![Key::new(NAMESPACE, text)]) };
        let found = self.by_age(PODS, prefix);
        if place == "*" {
            return Ok(found);
        }
        let place: usize = place.parse().map_err(|_| format!("{text}: not a place"))?;
        found.get(place - 1).map(|key| vec![key.clone()]).ok_or_else(|| format!("no {text}"))
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

fn owner_line(resource: Resource, object: &Value) -> String {
    let status = &object["status"];
    let count = |name: &str| status[name].as_i64().unwrap_or(0);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let wanted = &object["spec"]["replicas"];
    let revision = object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
    let revision = revision.map(|revision| format!(" revision {revision}")).unwrap_or_default();
    let image = object["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
    let updated = if resource.plural == "deployments" {
        format!(" updated {}", count("updatedReplicas"))
    } else {
        String::new()
    };
    format!(
        "  {resource} {name} {image}{revision}: wants {wanted}, has {}{updated} ready {} available {} terminating {}\n",
        count("replicas"),
        count("readyReplicas"),
        count("availableReplicas"),
        count("terminatingReplicas"),
    )
}

fn pod_line(pod: &Value) -> String {
    let metadata = &pod["metadata"];
    let ready = pod["status"]["conditions"][0]["status"] == "True";
    let state = match (metadata["deletionTimestamp"].is_string(), pod["status"]["phase"].as_str(), ready) {
        (true, _, _) => "Terminating",
        (false, Some("Running"), true) => "Ready",
        (false, phase, _) => phase.unwrap_or_default(),
    };
    let owner = metadata["ownerReferences"][0]["name"].as_str().unwrap_or("nobody");
    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
    let name = metadata["name"].as_str().unwrap_or_default();
    let node = pod["spec"]["nodeName"].as_str().unwrap_or("-");
    format!("  Pod {name} {image} of {owner} on {node}: {state}\n")
}
