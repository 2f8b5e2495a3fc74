//! Which kind, and which of its two faces, the user means by a word such as `tdeploy` or `deployment.apps`.
//!
//! A new workload kind is one row of [`ROWS`] and a variant of [`Kind`]; what a kind can do is asked where it is done:
//! `Target::must_roll_out`, `rollout::status::judge`, `rollout::read_history`, `why::run`.

use std::{fmt, str::FromStr};

use anyhow::{Result, bail};
use trysail_core::{Face, Resource};

/// The workload kinds that this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Deployment,
    ReplicaSet,
    ReplicationController,
    StatefulSet,
    DaemonSet,
}

struct Row {
    kind: Kind,
    singular: &'static str,
    plural: &'static str,
    /// kubectl's short name, which means either face here.
    short: &'static str,
    /// The CRD's own short name.
    own_short: &'static str,
}

const ROWS: [Row; 5] = [
    Row {
        kind: Kind::Deployment,
        singular: "deployment",
        plural: "deployments",
        short: "deploy",
        own_short: "tdeploy",
    },
    Row {
        kind: Kind::ReplicaSet,
        singular: "replicaset",
        plural: "replicasets",
        short: "rs",
        own_short: "trs",
    },
    Row {
        kind: Kind::ReplicationController,
        singular: "replicationcontroller",
        plural: "replicationcontrollers",
        short: "rc",
        own_short: "trc",
    },
    Row {
        kind: Kind::StatefulSet,
        singular: "statefulset",
        plural: "statefulsets",
        short: "sts",
        own_short: "tsts",
    },
    Row { kind: Kind::DaemonSet, singular: "daemonset", plural: "daemonsets", short: "ds", own_short: "tds" },
];

/// Kinds that Kubernetes has and this program does not serve, with every spelling kubectl takes.
const NOT_SUPPORTED: [(&str, &[&str]); 2] =
    [("Jobs", &["job", "jobs", "tjob"]), ("CronJobs", &["cronjob", "cronjobs", "cj", "tcj"])];

impl Kind {
    /// As the API server serves it.
    pub(crate) fn resource(self, face: Face) -> Resource {
        match self {
            Kind::Deployment => Resource::deployments(face),
            Kind::ReplicaSet => Resource::replica_sets(face),
            Kind::ReplicationController => Resource::replication_controllers(face),
            Kind::StatefulSet => Resource::stateful_sets(face),
            Kind::DaemonSet => Resource::daemon_sets(face),
        }
    }

    /// In lower case, as messages say it.
    pub(crate) fn singular(self) -> &'static str {
        self.row().singular
    }

    /// The spelling that means exactly this face.
    pub(crate) fn precise(self, face: Face) -> String {
        match (face, self.resource(face).group) {
            (Face::Crd, _) => self.row().own_short.to_owned(),
            (Face::Native, "") => format!("{}.core", self.singular()),
            (Face::Native, group) => format!("{}.{group}", self.singular()),
        }
    }

    fn row(self) -> &'static Row {
        match self {
            Kind::Deployment => &ROWS[0],
            Kind::ReplicaSet => &ROWS[1],
            Kind::ReplicationController => &ROWS[2],
            Kind::StatefulSet => &ROWS[3],
            Kind::DaemonSet => &ROWS[4],
        }
    }
}

/// What the user wrote for a kind; without a face, either will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KindArg {
    pub(crate) kind: Kind,
    pub(crate) face: Option<Face>,
}

impl FromStr for KindArg {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        let (word, qualifier) = lower.split_once('.').map_or((lower.as_str(), None), |(w, q)| (w, Some(q)));
        let Some(row) =
            ROWS.iter().find(|row| [row.singular, row.plural, row.short, row.own_short].contains(&word))
        else {
            return Err(unknown(text, word));
        };
        let own = (word == row.own_short).then_some(Face::Crd);
        let face = match qualifier {
            None => own,
            Some(qualifier) => match face_of_group(row.kind, qualifier) {
                Some(face) if own.is_none_or(|own| own == face) => Some(face),
                _ => bail!("unknown kind \"{text}\": {} is served as {}", row.kind, spellings(row)),
            },
        };
        Ok(Self { kind: row.kind, face })
    }
}

/// `apps`, `v1.apps`, `core`, and kubectl's `v1.` for the core group.
fn face_of_group(kind: Kind, qualifier: &str) -> Option<Face> {
    let group = match qualifier.strip_prefix("v1") {
        Some("" | ".") => "core",
        Some(rest) => rest.strip_prefix('.').unwrap_or(qualifier),
        None => qualifier,
    };
    [Face::Crd, Face::Native].into_iter().find(|&face| match kind.resource(face).group {
        "" => group == "core",
        served => group == served,
    })
}

fn spellings(row: &Row) -> String {
    let own = row.kind.resource(Face::Crd);
    format!("{} ({}.{}) and {}", row.own_short, own.plural, own.group, row.kind.precise(Face::Native))
}

fn unknown(text: &str, word: &str) -> anyhow::Error {
    for (name, words) in NOT_SUPPORTED {
        if words.contains(&word) {
            return anyhow::anyhow!(
                "{name} are not supported yet; for the built-in ones, kubectl does the same"
            );
        }
    }
    if ["pod", "pods", "po"].contains(&word) {
        return anyhow::anyhow!("\"{text}\" is no workload; kubectl serves pods directly");
    }
    let known: Vec<String> =
        ROWS.iter().map(|row| format!("{}|{}|{}", row.own_short, row.short, row.singular)).collect();
    anyhow::anyhow!("unknown kind \"{text}\"; known are {}", known.join(", "))
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource(Face::Crd).kind)
    }
}

/// `deployments.apps.trysail.dev`, as errors and RBAC rules name a resource.
pub(crate) fn qualified(resource: Resource) -> String {
    match resource.group {
        "" => resource.plural.to_owned(),
        group => format!("{}.{group}", resource.plural),
    }
}

/// `deployment.apps.trysail.dev/web`, as kubectl prints the name of what it changed.
pub(crate) fn printed(resource: Resource, name: &str) -> String {
    let kind = resource.kind.to_ascii_lowercase();
    match resource.group {
        "" => format!("{kind}/{name}"),
        group => format!("{kind}.{group}/{name}"),
    }
}

/// Splits `KIND/NAME …` or `KIND NAME …` from what follows.
pub(crate) fn split(words: &[String]) -> Result<(KindArg, &str, &[String])> {
    let (kind, name, rest) = match words {
        [] => bail!("which workload? Name it as KIND/NAME, for example tdeploy/web"),
        [first, rest @ ..] => match (first.split_once('/'), rest) {
            (Some((kind, name)), rest) => (kind, name, rest),
            (None, [name, rest @ ..]) => (first.as_str(), name.as_str(), rest),
            (None, []) => bail!("which {first}? Name it as KIND/NAME, for example {first}/web"),
        },
    };
    if name.is_empty() || name.contains('/') {
        bail!("\"{}\" names no workload; write KIND/NAME, for example tdeploy/web", words[0]);
    }
    Ok((kind.parse()?, name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Kind, Option<Face>), String> {
        text.parse::<KindArg>().map(|arg| (arg.kind, arg.face)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_spelling_means_a_kind_and_maybe_a_face() {
        use Face::{Crd, Native};
        use Kind::{DaemonSet, Deployment, ReplicaSet, ReplicationController, StatefulSet};
        for (text, kind, face) in [
            ("tdeploy", Deployment, Some(Crd)),
            ("deployment.apps.trysail.dev", Deployment, Some(Crd)),
            ("deployments.v1.apps.trysail.dev", Deployment, Some(Crd)),
            ("deploy", Deployment, None),
            ("Deployment", Deployment, None),
            ("deployments", Deployment, None),
            ("deployment.apps", Deployment, Some(Native)),
            ("deployments.v1.apps", Deployment, Some(Native)),
            ("trs", ReplicaSet, Some(Crd)),
            ("rs", ReplicaSet, None),
            ("rs.apps", ReplicaSet, Some(Native)),
            ("trc", ReplicationController, Some(Crd)),
            ("rc", ReplicationController, None),
            ("rc.core", ReplicationController, Some(Native)),
            ("replicationcontrollers.v1.", ReplicationController, Some(Native)),
            ("rc.apps.trysail.dev", ReplicationController, Some(Crd)),
            ("tsts", StatefulSet, Some(Crd)),
            ("sts", StatefulSet, None),
            ("statefulsets.apps", StatefulSet, Some(Native)),
            ("tds", DaemonSet, Some(Crd)),
            ("ds", DaemonSet, None),
        ] {
            assert_eq!(parse(text), Ok((kind, face)), "{text}");
        }
    }

    #[test]
    fn a_precise_spelling_parses_back_to_its_face() {
        for row in &ROWS {
            for face in [Face::Crd, Face::Native] {
                assert_eq!(parse(&row.kind.precise(face)), Ok((row.kind, Some(face))));
            }
        }
    }

    #[test]
    fn what_is_not_served_is_said_by_name() {
        insta::assert_snapshot!(
            ["cj", "tjob", "pod", "depl", "deployment.extensions", "tdeploy.apps"]
                .map(|text| parse(text).unwrap_err())
                .join("\n"),
            @r#"
        CronJobs are not supported yet; for the built-in ones, kubectl does the same
        Jobs are not supported yet; for the built-in ones, kubectl does the same
        "pod" is no workload; kubectl serves pods directly
        unknown kind "depl"; known are tdeploy|deploy|deployment, trs|rs|replicaset, trc|rc|replicationcontroller, tsts|sts|statefulset, tds|ds|daemonset
        unknown kind "deployment.extensions": Deployment is served as tdeploy (deployments.apps.trysail.dev) and deployment.apps
        unknown kind "tdeploy.apps": Deployment is served as tdeploy (deployments.apps.trysail.dev) and deployment.apps
        "#
        );
    }

    #[test]
    fn both_forms_of_naming_split() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for text in ["tdeploy/web c=img", "tdeploy web c=img"] {
            let words = words(text);
            let (kind, name, rest) = split(&words).unwrap();
            assert_eq!((kind.face, name, rest), (Some(Face::Crd), "web", &["c=img".to_owned()][..]));
        }
        for bad in ["tdeploy", "tdeploy/", "tdeploy/a/b"] {
            assert!(split(&words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_print_as_kubectl_prints_them() {
        let crd = Kind::Deployment.resource(Face::Crd);
        assert_eq!(printed(crd, "web"), "deployment.apps.trysail.dev/web");
        assert_eq!(qualified(crd), "deployments.apps.trysail.dev");
        let native = Kind::ReplicationController.resource(Face::Native);
        assert_eq!(
            (printed(native, "web"), qualified(native)),
            ("replicationcontroller/web".into(), "replicationcontrollers".into())
        );
    }
}
