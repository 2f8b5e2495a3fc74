//! What the kinds promise about every moment, judged from the API's [`history`](crate::history).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    history::{Entry, at_every_moment, created, serves},
    object::is_true,
};

/// The index that a pod of an Indexed Job works on.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The moment that a Job of a CronJob is for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Finalizers by which finished pods wait to be counted, in either face.
const TRACKING: [&str; 2] = ["batch.trysail.dev/job-tracking", "batch.kubernetes.io/job-tracking"];

/// Stands in for the finalizer while no controller is there.
const UNCOUNTED: &str = "batch.trysail.dev/uncounted";

fn is_pod_of(name: &str) -> impl Fn(&Entry) -> bool {
    move |entry| entry.kind == "Pod" && entry.is_of(name)
}

/// At most one pod per ordinal. The API has one of a name at most, so this is about what it cannot see to: no
/// pod's name was free while its containers ran. Besides, none had an ordinal that is not wanted.
pub fn one_pod_per_ordinal(entries: &[Entry], set: &str, replicas: usize) -> Result<()> {
    let names: BTreeSet<String> = (0..replicas).map(|ordinal| format!("{set}-{ordinal}")).collect();
    for entry in entries.iter().filter(|entry| is_pod_of(set)(entry)) {
        ensure!(names.contains(entry.name()), "pod {} is of no ordinal of {set}", entry.name());
        ensure!(
            !(entry.is_end && has_running_container(&entry.object)),
            "pod {} was removed from the API at version {} while it ran",
            entry.name(),
            entry.version
        );
    }
    Ok(())
}

fn has_running_container(pod: &Value) -> bool {
    let containers = pod["status"]["containerStatuses"].as_array();
    containers.into_iter().flatten().any(|container| container["state"]["running"].is_object())
}

/// From that version on never fewer pods of it served.
pub fn never_fewer(entries: &[Entry], since: u64, name: &str, least: usize) -> Result<()> {
    at_every_moment(entries, since, is_pod_of(name), |pods| {
        let serving = pods.values().filter(|pod| serves(pod)).count();
        ensure!(serving >= least, "{serving} pods of {name} serve, {least} were promised");
        Ok(())
    })
}

/// From that version on a pod of it served on each of these nodes, and no node had more than two.
pub fn never_without_a_pod(
    entries: &[Entry],
    since: u64,
    name: &str,
    nodes: &BTreeSet<String>,
) -> Result<()> {
    ensure!(!nodes.is_empty(), "no node: nothing was proven");
    at_every_moment(entries, since, is_pod_of(name), |pods| {
        for node in nodes {
            let here = || pods.values().filter(|pod| pod["spec"]["nodeName"] == **node);
            ensure!(here().any(|pod| serves(pod)), "no pod of {name} serves on {node}");
            let active = here().filter(|pod| !pod["metadata"]["deletionTimestamp"].is_string()).count();
            ensure!(active <= 2, "{active} pods of {name} are on {node}");
        }
        Ok(())
    })
}

/// Each index succeeded once, and was counted once: by the Job's status at every moment, and by the pods' finalizers,
/// which went after their finish was written down. No pod was created once the Job was complete.
pub fn counted_once(entries: &[Entry], job: &str, completions: usize) -> Result<()> {
    let pods = created(entries, is_pod_of(job));
    let mut indexes: Vec<usize> = pods.iter().filter_map(|pod| index(&pod.object)).collect();
    indexes.sort_unstable();
    ensure!(indexes == (0..completions).collect::<Vec<_>>(), "pods were made for the indexes {indexes:?}");

    let (mut succeeded, mut recorded) = (BTreeSet::new(), BTreeSet::new());
    let (mut count, mut complete_at) = (0, None);
    for entry in entries.iter().filter(|entry| entry.is_of(job)) {
        if entry.kind == "Pod" {
            let index = index(&entry.object).context("a pod has no index")?;
            if entry.object["status"]["phase"] == "Succeeded" {
                succeeded.insert(index);
            }
            let is_let_go = !is_tracked(&entry.object);
            ensure!(
                !is_let_go || recorded.contains(&index),
                "pod {} lost its finalizer at version {} before its index was in the status",
                entry.name(),
                entry.version
            );
        } else if entry.kind == "Job" && !entry.is_end {
            let status = &entry.object["status"];
            let at = || format!("at version {}: {status}", entry.version);
            recorded =
                parse_indexes(status["completedIndexes"].as_str().unwrap_or_default()).with_context(at)?;
            let counted = status["succeeded"].as_u64().unwrap_or(0);
            ensure!(counted >= count, "the count fell from {count} {}", at());
            ensure!(counted == recorded.len() as u64, "the count is not that of the indexes {}", at());
            ensure!(recorded.is_subset(&succeeded), "counted before it succeeded {}", at());
            ensure!(status["failed"].as_u64().unwrap_or(0) == 0, "a failure was counted {}", at());
            count = counted;
            if complete_at.is_none() && is_true(&entry.object, "Complete") {
                complete_at = Some(entry.version);
            }
        }
    }
    let complete_at = complete_at.context("the Job was never complete")?;
    ensure!(count == completions as u64, "{count} of {completions} were counted");
    let late = pods.iter().find(|pod| pod.version > complete_at);
    ensure!(
        late.is_none(),
        "pod {} was created after the Job was complete",
        late.map_or("", |pod| pod.name())
    );
    Ok(())
}

fn index(pod: &Value) -> Option<usize> {
    pod["metadata"]["annotations"][INDEX].as_str()?.parse().ok()
}

/// It waits to be counted: by its finalizer, or, where no controller was there, by what stands in for it.
fn is_tracked(pod: &Value) -> bool {
    let metadata = &pod["metadata"];
    let finalizers = metadata["finalizers"].as_array();
    metadata["annotations"][UNCOUNTED].is_string()
        || finalizers
            .into_iter()
            .flatten()
            .any(|finalizer| TRACKING.iter().any(|tracking| finalizer == tracking))
}

/// `0-3,7`
fn parse_indexes(text: &str) -> Result<BTreeSet<usize>> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        indexes.extend(first.parse::<usize>()?..=last.parse::<usize>()?);
    }
    Ok(indexes)
}

/// One Job per due minute, none left out, none early. Says how many.
pub fn one_job_a_minute(entries: &[Entry], cron_job: &str) -> Result<usize> {
    let jobs = created(entries, |entry| {
        let owners = entry.object["metadata"]["ownerReferences"].as_array();
        entry.kind == "Job" && owners.into_iter().flatten().any(|owner| owner["name"] == cron_job)
    });
    let mut due: BTreeMap<i64, &str> = BTreeMap::new();
    for job in &jobs {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a Job of no moment");
        let scheduled: jiff::Timestamp = text(&job.object["metadata"]["annotations"][SCHEDULED])?.parse()?;
        let made: jiff::Timestamp = text(&job.object["metadata"]["creationTimestamp"])?.parse()?;
        ensure!(scheduled <= made, "Job {} came before its time", job.name());
        let other = due.insert(scheduled.as_second().div_euclid(60), job.name());
        ensure!(other.is_none(), "Jobs {} and {} are for {scheduled}", other.unwrap_or_default(), job.name());
    }
    let minutes: Vec<i64> = due.into_keys().collect();
    ensure!(minutes.windows(2).all(|pair| pair[1] == pair[0] + 1), "a minute was left out: {minutes:?}");
    Ok(jobs.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Default)]
    struct Story(Vec<Entry>);

    impl Story {
        fn tell(&mut self, kind: &str, object: Value, is_end: bool) {
            let version = self.0.len() as u64 + 1;
            self.0.push(Entry { version, kind: kind.to_owned(), is_end, object });
        }

        /// A pod is told of as `UID@NODE`, with words for its state.
        fn pod(&mut self, pod: &str, words: &str) -> &mut Self {
            let is = |word: &str| words.split(' ').any(|held| held == word);
            let (uid, node) = pod.split_once('@').unwrap_or((pod, "a"));
            let index = words.split(' ').find_map(|word| word.strip_prefix("index="));
            let finalizers = if is("free") { json!([]) } else { json!([TRACKING[0]]) };
            let object = json!({
                "metadata": {"name": uid.trim_end_matches('\''), "uid": uid, "labels": {"app": "web"},
                    "annotations": {INDEX: index}, "finalizers": finalizers,
                    "deletionTimestamp": is("going").then_some("2026-01-01T00:00:00Z")},
                "spec": {"nodeName": node},
                "status": {
                    "phase": if is("done") { "Succeeded" } else { "Running" },
                    "conditions": [{"type": "Ready", "status": if is("ready") { "True" } else { "False" }}],
                    "containerStatuses": [{"state": if is("ended") { json!({}) } else { json!({"running": {}}) }}],
                },
            });
            self.tell("Pod", object, is("gone"));
            self
        }

        fn job(&mut self, indexes: &str, succeeded: u64, complete: &str) -> &mut Self {
            let status = json!({"completedIndexes": indexes, "succeeded": succeeded,
                "conditions": [{"type": "Complete", "status": complete}]});
            let metadata = json!({"name": "web", "uid": "job"});
            self.tell("Job", json!({"metadata": metadata, "status": status}), false);
            self
        }

        fn run(&mut self, name: &str, scheduled: &str, made: &str) -> &mut Self {
            let metadata = json!({"name": name, "uid": name, "creationTimestamp": made,
                "annotations": {SCHEDULED: scheduled}, "ownerReferences": [{"name": "web"}]});
            self.tell("Job", json!({"metadata": metadata}), false);
            self
        }

        fn fails(&self, judge: impl Fn(&[Entry]) -> Result<()>, why: &str) {
            let error = format!("{:#}", judge(&self.0).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_name_is_free_when_its_containers_have_ended() {
        let judge = |entries: &[Entry]| one_pod_per_ordinal(entries, "web", 1);
        let mut story = Story::default();
        story.pod("web-0", "ready").pod("web-0", "going ended").pod("web-0", "going ended gone");
        judge(&story.pod("web-0'", "ready").0).unwrap();
        story.fails(|entries| one_pod_per_ordinal(entries, "web", 0), "of no ordinal");
        story.pod("web-0'", "going gone").fails(judge, "while it ran");
    }

    #[test]
    fn a_node_without_a_pod_is_found_between_two_that_have_one() {
        let nodes: BTreeSet<String> = ["a", "b"].map(str::to_owned).into();
        let judge = |entries: &[Entry]| never_without_a_pod(entries, 3, "web", &nodes);
        let mut story = Story::default();
        story.pod("x@a", "").pod("x@a", "ready").pod("y@b", "ready").pod("z@a", "").pod("z@a", "ready");
        judge(&story.pod("x@a", "ready going").0).unwrap();
        never_fewer(&story.0, 3, "web", 2).unwrap();
        story.fails(|entries| never_fewer(entries, 3, "web", 3), "2 pods of web serve");
        let mut surplus = Story(story.0.clone());
        surplus.pod("v@b", "").pod("w@b", "").fails(judge, "3 pods of web are on b");
        story.pod("z@a", "").fails(judge, "no pod of web serves on a");
        assert!(never_without_a_pod(&story.0, 99, "web", &nodes).is_err(), "nothing was seen");
    }

    #[test]
    fn what_a_job_counts_wrong_is_found() {
        let judge = |entries: &[Entry]| counted_once(entries, "web", 2);
        let start = || {
            let mut story = Story::default();
            story.job("", 0, "False").pod("p", "index=0").pod("q", "index=1").pod("p", "index=0 done");
            story
        };
        let mut good = start();
        good.job("0", 1, "False")
            .pod("p", "index=0 done free")
            .pod("q", "index=1 done")
            .job("0,1", 2, "True");
        judge(&good.pod("q", "index=1 done free gone").0).unwrap();
        good.pod("r", "index=1").fails(judge, "for the indexes [0, 1, 1]");

        start().pod("p", "index=0 done free").fails(judge, "lost its finalizer");
        start().job("0-1", 2, "True").fails(judge, "counted before it succeeded");
        start().job("0", 2, "False").fails(judge, "not that of the indexes");
        start().job("0", 1, "False").job("", 0, "False").fails(judge, "fell from 1");
        start().job("0", 1, "False").fails(judge, "never complete");
        start().job("0", 1, "True").fails(judge, "1 of 2 were counted");
        let mut late = Story::default();
        late.pod("p", "index=0 done").job("0", 1, "True").pod("q", "index=1 done").job("0-1", 2, "True");
        late.fails(judge, "after the Job was complete");
    }

    #[test]
    fn runs_of_a_minute_are_told_apart() {
        let judge = |entries: &[Entry]| one_job_a_minute(entries, "web").map(drop);
        let mut story = Story::default();
        story.run("one", "2026-01-01T02:00:00+01:00", "2026-01-01T01:00:00Z");
        story.run("two", "2026-01-01T01:01:00Z", "2026-01-01T01:01:07Z");
        assert_eq!(one_job_a_minute(&story.0, "web").unwrap(), 2);
        let with = |name: &str, scheduled: &str, made: &str| {
            let mut more = Story(story.0.clone());
            more.run(name, scheduled, made);
            more
        };
        with("again", "2026-01-01T01:01:00Z", "2026-01-01T01:01:08Z").fails(judge, "Jobs two and again");
        with("later", "2026-01-01T01:03:00Z", "2026-01-01T01:03:00Z").fails(judge, "left out");
        with("early", "2026-01-01T01:02:00Z", "2026-01-01T01:01:59Z").fails(judge, "before its time");
    }
}
