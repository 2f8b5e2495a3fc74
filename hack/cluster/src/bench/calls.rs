//! Which API calls the subject sent, from the API server's audit log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::home::User;

/// Requests of one phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Calls {
    /// How often each was sent, as `create pods` or `update deployments/status`; events are not among them.
    pub by_verb: BTreeMap<String, u64>,
    /// Writes of events, which say nothing about the work.
    pub events: u64,
    /// Requests that were answered with an error, by verb and code.
    pub refused: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    user: Username,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: Status,
}

#[derive(Debug, Deserialize)]
struct Username {
    username: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl Calls {
    /// What the log holds from byte `start` on, and where it ends.
    pub(crate) fn read(log: &Path, start: u64) -> Result<(Self, u64)> {
        let context = || format!("cannot read the audit log {}", log.display());
        let mut file = File::open(log).with_context(context)?;
        file.seek(SeekFrom::Start(start)).with_context(context)?;
        let mut reader = BufReader::new(file);
        let (mut calls, mut end, mut line) = (Self::default(), start, Vec::new());
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).with_context(context)?;
            // The server may be writing the last line just now: it belongs to the next reading.
            if line.last() != Some(&b'\n') {
                return Ok((calls, end));
            }
            end += length as u64;
            calls.add(&serde_json::from_slice(&line).with_context(context)?);
        }
    }

    fn add(&mut self, event: &Event) {
        // A watch is counted when it begins, everything else when it ends.
        let counted = match event.stage.as_str() {
            "ResponseStarted" => event.verb == "watch",
            "ResponseComplete" => event.verb != "watch",
            _ => false,
        };
        if !counted || event.user.username != User::Subject.name() {
            return;
        }
        let target = &event.object_ref;
        if target.resource == "events" {
            self.events += 1;
            return;
        }
        let slash = if target.subresource.is_empty() { "" } else { "/" };
        let call = format!("{} {}{slash}{}", event.verb, target.resource, target.subresource);
        if event.response_status.code >= 400 {
            *self.refused.entry(format!("{call} {}", event.response_status.code)).or_default() += 1;
        }
        *self.by_verb.entry(call).or_default() += 1;
    }

    /// All writes but those of events, refused ones included: they cost as much. Questions that are asked by
    /// creating a review are none.
    pub(crate) fn writes(&self) -> u64 {
        let is_write = |call: &str| {
            ["create ", "update ", "patch ", "delete ", "deletecollection "]
                .iter()
                .any(|verb| call.starts_with(verb))
        };
        self.by_verb
            .iter()
            .filter(|(call, _)| is_write(call) && !call.ends_with("reviews"))
            .map(|(_, count)| count)
            .sum()
    }

    /// Writes of specs: ReplicaSets made and scaled, revisions noted on Deployments. The minimum knows none of them.
    pub(crate) fn spec_writes(&self) -> u64 {
        let is_spec = |call: &str| {
            let target = call.split_once(' ').map_or("", |(_, target)| target);
            matches!(target, "deployments" | "replicasets" | "replicationcontrollers")
                && !["get ", "list ", "watch "].iter().any(|verb| call.starts_with(verb))
        };
        self.by_verb.iter().filter(|(call, _)| is_spec(call)).map(|(_, count)| count).sum()
    }

    /// Writes to pods that exist: finalizers removed, pods adopted and released.
    pub(crate) fn later_pod_writes(&self) -> u64 {
        ["update pods", "patch pods", "update pods/status", "patch pods/status"]
            .map(|call| self.count(call))
            .iter()
            .sum()
    }

    /// How often that call was sent.
    pub(crate) fn count(&self, call: &str) -> u64 {
        self.by_verb.get(call).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(stage: &str, user: &str, verb: &str, resource: &str, subresource: &str, code: u16) -> String {
        format!(
            r#"{{"stage":"{stage}","verb":"{verb}","user":{{"username":"{user}"}},"objectRef":{{"resource":"{resource}","subresource":"{subresource}"}},"responseStatus":{{"code":{code}}}}}"#
        )
    }

    /// Reads are no writes, events stand apart, a conflict is a write that was paid for, others do not count, and
    /// a line that is still being written is left for later.
    #[test]
    fn calls_are_sorted() {
        let me = User::Subject.name();
        let mut log = tempfile::NamedTempFile::new().unwrap();
        for text in [
            line("ResponseStarted", me, "watch", "pods", "", 200),
            line("ResponseComplete", me, "watch", "pods", "", 200),
            line("ResponseComplete", me, "list", "pods", "", 200),
            line("ResponseComplete", me, "create", "pods", "", 201),
            line("ResponseComplete", me, "create", "events", "", 201),
            line("ResponseComplete", me, "create", "selfsubjectaccessreviews", "", 201),
            line("ResponseComplete", me, "update", "deployments", "status", 409),
            line("ResponseComplete", me, "patch", "replicasets", "", 200),
            line("ResponseComplete", me, "get", "replicasets", "", 200),
            line("ResponseComplete", "bench-driver", "create", "pods", "", 201),
        ] {
            writeln!(log, "{text}").unwrap();
        }
        write!(log, "{{\"stage\":\"Resp").unwrap();
        let (calls, end) = Calls::read(log.path(), 0).unwrap();
        assert_eq!((calls.writes(), calls.events, calls.count("watch pods")), (3, 1, 1));
        assert_eq!(calls.spec_writes(), 1);
        assert_eq!(calls.refused, [("update deployments/status 409".to_owned(), 1)].into());

        writeln!(log, "onseComplete\",{}", &line("", me, "delete", "pods", "", 200)[12..]).unwrap();
        let (later, _) = Calls::read(log.path(), end).unwrap();
        assert_eq!(later.by_verb, [("delete pods".to_owned(), 1)].into());
    }
}
