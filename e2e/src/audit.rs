//! The API server's audit log: what our managers really asked for, told by somebody else.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::PathBuf,
};

use anyhow::{Context, Result};
use serde::Deserialize;

/// User names of our managers: the static pod's, and that of the chart's service account.
pub const IDENTITIES: [&str; 2] =
    ["trysail-manager", "system:serviceaccount:trysail-system:trysail-workloads"];

/// A place in the log.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
    from: u64,
}

/// A request of one of our managers.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asked.
    pub user: String,
    /// What for.
    pub access: Access,
    /// Where; empty for what has no namespace and for requests across all of them.
    pub namespace: String,
    /// Which object, if one.
    pub name: String,
    /// RBAC said no.
    pub forbidden: bool,
    /// In the API server's words, why it was allowed or not.
    pub reason: String,
    /// Status code of the answer; 0 when there was none.
    pub code: u16,
}

/// What a rule of RBAC is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// API group.
    pub group: String,
    /// Plural, with the subresource after a slash.
    pub resource: String,
    /// As RBAC has it.
    pub verb: String,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{} {}{dot}{}", self.verb, self.resource, self.group)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    impersonated_user: Option<User>,
    response_status: Option<ResponseStatus>,
    object_ref: Option<ObjectRef>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    api_group: String,
    namespace: String,
    name: String,
}

impl AuditLog {
    /// From the cluster's first request on.
    pub fn whole() -> Result<Self> {
        Ok(Self { path: crate::cluster()?.audit_log(), from: 0 })
    }

    /// From now on.
    pub fn from_now() -> Result<Self> {
        let log = Self::whole()?;
        let length = std::fs::metadata(&log.path)
            .with_context(|| format!("the API server writes no audit log at {}", log.path.display()))?
            .len();
        Ok(Self { from: length, ..log })
    }

    /// The requests of our managers.
    pub fn ours(&self) -> Result<Vec<Request>> {
        self.requests(|event| Some(&event.user))
    }

    /// The requests of managers that tests run as processes of this machine, in the name of ours.
    pub fn local(&self) -> Result<Vec<Request>> {
        self.requests(|event| event.impersonated_user.as_ref())
    }

    fn requests(&self, who: impl Fn(&Event) -> Option<&User>) -> Result<Vec<Request>> {
        let context = || format!("failed to read the audit log {}", self.path.display());
        let mut file = File::open(&self.path).with_context(context)?;
        file.seek(SeekFrom::Start(self.from)).with_context(context)?;
        let mut requests = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line.with_context(context)?;
            if IDENTITIES.iter().any(|user| line.contains(user)) {
                // The server may be writing the last line just now.
                let Ok(event) = serde_json::from_str::<Event>(&line) else { continue };
                let user = who(&event).map(|user| user.username.clone());
                if let Some(user) = user.filter(|user| IDENTITIES.contains(&user.as_str())) {
                    requests.push(request(event, user));
                }
            }
        }
        Ok(requests)
    }
}

fn request(event: Event, user: String) -> Request {
    let about = |name: &str| event.annotations.get(name).cloned().unwrap_or_default();
    let object = event.object_ref.unwrap_or_default();
    let slash = if object.subresource.is_empty() { "" } else { "/" };
    Request {
        forbidden: about("authorization.k8s.io/decision") == "forbid",
        reason: about("authorization.k8s.io/reason"),
        user,
        code: event.response_status.map_or(0, |status| status.code),
        access: Access {
            group: object.api_group,
            resource: format!("{}{slash}{}", object.resource, object.subresource),
            verb: event.verb,
        },
        namespace: object.namespace,
        name: object.name,
    }
}

/// What those requests were for.
pub fn used<'a>(requests: impl IntoIterator<Item = &'a Request>) -> BTreeSet<Access> {
    requests.into_iter().map(|request| request.access.clone()).collect()
}
