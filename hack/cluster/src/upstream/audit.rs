//! Who did the work? Judges the API server's audit log of a run: every write of a workload controller in the tests'
//! namespaces must come from our identity, and that identity must not LIST once it runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Namespaces that no test creates.
const OWN_NAMESPACES: &[&str] =
    &["kube-system", "kube-public", "kube-node-lease", "default", "trysail-system"];

/// Resources that workload controllers write.
const RESOURCES: &[&str] = &[
    "pods",
    "deployments",
    "replicasets",
    "replicationcontrollers",
    "statefulsets",
    "daemonsets",
    "jobs",
    "cronjobs",
    "controllerrevisions",
    "horizontalpodautoscalers",
    "poddisruptionbudgets",
];

/// The names under which kube-controller-manager runs the controllers that ours can replace.
const STOCK_ACCOUNTS: &[(&str, &str)] = &[
    ("deployment", "system:serviceaccount:kube-system:deployment-controller"),
    ("replicaset", "system:serviceaccount:kube-system:replicaset-controller"),
    ("replicationcontroller", "system:serviceaccount:kube-system:replication-controller"),
    ("statefulset", "system:serviceaccount:kube-system:statefulset-controller"),
    ("daemonset", "system:serviceaccount:kube-system:daemon-set-controller"),
    ("job", "system:serviceaccount:kube-system:job-controller"),
    ("cronjob", "system:serviceaccount:kube-system:cronjob-controller"),
    ("ttl-after-finished", "system:serviceaccount:kube-system:ttl-after-finished-controller"),
    ("horizontal-pod-autoscaler", "system:serviceaccount:kube-system:horizontal-pod-autoscaler"),
    ("disruption", "system:serviceaccount:kube-system:disruption-controller"),
];

/// The annotation in which the API server says what authorization decided.
const DECISION: &str = "authorization.k8s.io/decision";

/// What is to be held against the log.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// User names of our manager.
    pub(crate) identities: Vec<String>,
    /// kube-controller-manager's `--controllers`: what is switched off there is ours.
    pub(crate) kcm_controllers: String,
}

/// What the log says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditVerdict {
    /// Writes of workload resources in the tests' namespaces, by user, and of ours by verb and resource.
    pub writes_by_user: BTreeMap<String, u64>,
    /// Our writes by verb and resource.
    pub our_writes: BTreeMap<String, u64>,
    /// What breaks the rules, with how often.
    pub violations: BTreeMap<String, u64>,
}

/// One event of the log, as far as it counts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(default)]
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct User {
    username: String,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
}

/// The end of the log now: where the part of a run begins.
pub(crate) fn position(log: &Path) -> Result<u64> {
    Ok(std::fs::metadata(log)
        .with_context(|| format!("the API server writes no audit log at {}", log.display()))?
        .len())
}

/// Judges what was written to `log` since `start`.
pub(crate) fn judge(log: &Path, start: u64, rules: &Rules) -> Result<AuditVerdict> {
    let mut verdict = AuditVerdict::default();
    read(log, start, |event| verdict.add(&event, rules))?;
    verdict.finish(rules);
    Ok(verdict)
}

/// How many LISTs our manager has sent since `start`.
pub(crate) fn lists(log: &Path, start: u64, rules: &Rules) -> Result<usize> {
    let mut count = 0;
    read(log, start, |event| {
        let ours = rules.identities.contains(&event.user.username);
        count += usize::from(ours && event.verb == "list");
    })?;
    Ok(count)
}

fn read(log: &Path, start: u64, mut each: impl FnMut(Event)) -> Result<()> {
    let context = || format!("failed to read the audit log {}", log.display());
    let mut file = File::open(log).with_context(context)?;
    file.seek(SeekFrom::Start(start)).with_context(context)?;
    for line in BufReader::new(file).lines() {
        // The server may be writing the last line just now.
        if let Ok(event) = serde_json::from_str::<Event>(&line.with_context(context)?) {
            each(event);
        }
    }
    Ok(())
}

impl AuditVerdict {
    fn add(&mut self, event: &Event, rules: &Rules) {
        if event.stage != "ResponseComplete" {
            return;
        }
        let user = event.user.username.as_str();
        let ours = rules.identities.iter().any(|identity| identity == user);
        if ours && event.user.groups.iter().any(|group| group == "system:masters") {
            self.violation(format!("{user} is in system:masters: it must work under its own RBAC"));
        }
        let target = &event.object_ref;
        // A refusal by admission (a quota, a namespace that is going away) is part of the tests; one by RBAC is not.
        if ours && event.annotations.get(DECISION).is_some_and(|decision| decision == "forbid") {
            self.violation(format!("{user} may not {} {}: its RBAC lacks that", event.verb, target.resource));
        }
        if event.verb == "list" {
            if ours {
                self.violation(format!("{user} sent a LIST of {} in steady state", target.resource));
            }
            return;
        }
        let is_write =
            matches!(event.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection");
        let in_tests = !target.namespace.is_empty() && !OWN_NAMESPACES.contains(&target.namespace.as_str());
        if !is_write || !in_tests || !RESOURCES.contains(&target.resource.as_str()) {
            return;
        }
        *self.writes_by_user.entry(kind_of_user(user)).or_default() += 1;
        if ours {
            let slash = if target.subresource.is_empty() { "" } else { "/" };
            let key = format!("{} {}{slash}{}", event.verb, target.resource, target.subresource);
            *self.our_writes.entry(key).or_default() += 1;
        } else if let Some(reason) = foreign(user, rules) {
            self.violation(format!("{user} wrote {}: {reason}", target.resource));
        }
    }

    fn finish(&mut self, rules: &Rules) {
        if rules.expects_us() && self.our_writes.is_empty() {
            self.violation(format!(
                "{} wrote nothing: somebody else did the work",
                rules.identities.join(" or ")
            ));
        }
    }

    fn violation(&mut self, text: String) {
        *self.violations.entry(text).or_default() += 1;
    }
}

impl Rules {
    /// Whether somebody other than kube-controller-manager has to do some of its work.
    pub(crate) fn expects_us(&self) -> bool {
        self.replaced().next().is_some()
    }

    /// The accounts of the controllers that are switched off in kube-controller-manager.
    fn replaced(&self) -> impl Iterator<Item = &'static str> {
        STOCK_ACCOUNTS.iter().filter(|(name, _)| self.is_off(name)).map(|(_, account)| *account)
    }

    /// kube-controller-manager's reading of its flag: a minus wins, a star means all.
    fn is_off(&self, name: &str) -> bool {
        let long = format!("{name}-controller");
        let entries = || self.kcm_controllers.split(',').map(str::trim);
        let names = |entry: &str| entry == name || entry == long;
        entries().any(|entry| entry.strip_prefix('-').is_some_and(names))
            || !entries().any(|entry| entry == "*" || names(entry))
    }
}

/// Why a write by `user`, who is not us, breaks the rules.
fn foreign(user: &str, rules: &Rules) -> Option<&'static str> {
    if rules.replaced().any(|account| account == user) {
        return Some("that controller should be off");
    }
    if user == "system:kube-controller-manager" {
        return Some("its controllers should have accounts of their own");
    }
    let known = ["system:node:", "system:serviceaccount:"].iter().any(|prefix| user.starts_with(prefix))
        || ["system:kube-scheduler", "kubernetes-admin", "kubernetes-super-admin", "system:apiserver"]
            .contains(&user);
    (!known).then_some("nobody knows who that is")
}

/// Nodes and test namespaces are many: one line for each kind is enough.
fn kind_of_user(user: &str) -> String {
    if user.starts_with("system:node:") {
        return "system:node:*".to_owned();
    }
    match user.strip_prefix("system:serviceaccount:") {
        Some(rest) if !OWN_NAMESPACES.iter().any(|own| rest.starts_with(&format!("{own}:"))) => {
            "system:serviceaccount:<test namespace>".to_owned()
        }
        _ => user.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn event(user: &str, verb: &str, namespace: &str, resource: &str) -> String {
        format!(
            r#"{{"stage":"ResponseComplete","verb":"{verb}","user":{{"username":"{user}","groups":["system:authenticated"]}},"objectRef":{{"resource":"{resource}","namespace":"{namespace}"}},"annotations":{{"authorization.k8s.io/decision":"allow"}}}}"#
        )
    }

    fn judged(controllers: &str, before: &[String], lines: &[String]) -> AuditVerdict {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        for line in before {
            writeln!(log, "{line}").unwrap();
        }
        let start = position(log.path()).unwrap();
        for line in lines {
            writeln!(log, "{line}").unwrap();
        }
        write!(log, "{{\"stage\":\"Resp").unwrap(); // a line that is not finished yet
        let rules = Rules { identities: vec!["trysail-manager".into()], kcm_controllers: controllers.into() };
        judge(log.path(), start, &rules).unwrap()
    }

    const OFF: &str = "*,-deployment-controller,-replicaset-controller,-replicationcontroller-controller";
    const STOCK: &str = "system:serviceaccount:kube-system:replicaset-controller";

    /// An honest run: ours writes, the tests write, nodes and other controllers do their part.
    #[test]
    fn an_honest_run_has_no_violation() {
        let verdict = judged(
            OFF,
            &[event("trysail-manager", "list", "", "pods"), event(STOCK, "create", "deployment-1", "pods")],
            &[
                event("trysail-manager", "create", "deployment-1", "pods"),
                event("kubernetes-admin", "create", "deployment-1", "deployments"),
                event("system:node:w1", "patch", "deployment-1", "pods"),
                event(
                    "system:serviceaccount:kube-system:generic-garbage-collector",
                    "delete",
                    "deployment-1",
                    "pods",
                ),
                event("system:serviceaccount:kube-system:job-controller", "create", "job-1", "pods"),
                event("system:serviceaccount:deployment-1:default", "delete", "deployment-1", "pods"),
                event("kubernetes-admin", "list", "deployment-1", "pods"),
            ],
        );
        assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
        assert_eq!(verdict.our_writes["create pods"], 1);
        assert_eq!(verdict.writes_by_user["system:serviceaccount:<test namespace>"], 1);
    }

    fn violations(controllers: &str, lines: &[String]) -> Vec<String> {
        judged(controllers, &[], lines).violations.into_keys().collect()
    }

    #[test]
    fn a_stock_controller_that_should_be_off_is_found() {
        let ours = event("trysail-manager", "create", "x", "pods");
        let found = violations(OFF, &[ours.clone(), event(STOCK, "create", "deployment-1", "pods")]);
        assert_eq!(found, [format!("{STOCK} wrote pods: that controller should be off")]);
        assert!(
            violations(OFF, &[ours, event(STOCK, "create", "kube-system", "pods")]).is_empty(),
            "not a test's"
        );
        assert!(violations("*", &[event(STOCK, "create", "deployment-1", "pods")]).is_empty(), "a stock run");
    }

    #[test]
    fn strangers_and_shared_accounts_are_found() {
        let ours = event("trysail-manager", "create", "x", "pods");
        let found = violations(OFF, &[ours.clone(), event("mallory", "create", "x", "pods")]);
        assert_eq!(found, ["mallory wrote pods: nobody knows who that is"]);
        let found = violations(OFF, &[ours, event("system:kube-controller-manager", "delete", "x", "pods")]);
        assert!(found[0].contains("accounts of their own"), "{found:?}");
    }

    #[test]
    fn lists_in_steady_state_are_found() {
        let lines =
            [event("trysail-manager", "create", "x", "pods"), event("trysail-manager", "list", "", "pods")];
        assert_eq!(violations(OFF, &lines), ["trysail-manager sent a LIST of pods in steady state"]);
    }

    /// If our manager is dead and something else does its work, no single write may look wrong.
    #[test]
    fn silence_is_found() {
        assert_eq!(violations(OFF, &[]), ["trysail-manager wrote nothing: somebody else did the work"]);
        assert!(violations("*", &[]).is_empty());
    }

    #[test]
    fn superusers_and_refusals_are_found() {
        let master =
            event("trysail-manager", "create", "x", "pods").replace("system:authenticated", "system:masters");
        assert!(violations(OFF, &[master])[0].contains("under its own RBAC"));
        let refused = event("trysail-manager", "create", "x", "pods").replace("allow", "forbid");
        assert_eq!(violations(OFF, &[refused]), ["trysail-manager may not create pods: its RBAC lacks that"]);
    }

    #[test]
    fn controllers_are_read_as_the_controller_manager_reads_them() {
        let off = |list: &str| {
            let rules = Rules { identities: Vec::new(), kcm_controllers: list.into() };
            rules.replaced().count()
        };
        assert_eq!(off("*"), 0);
        assert_eq!(off("*,-deployment,-replicaset-controller"), 2);
        assert_eq!(off("deployment-controller"), STOCK_ACCOUNTS.len() - 1);
    }
}
