//! Used = granted. The API server's audit log says what the managers asked for since the cluster came up, RBAC's
//! objects what they may ask for.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use trysail_e2e::{
    audit::{Access, AuditLog, IDENTITIES, Request, used},
    connect,
};

/// Granted though no test can be sure to see it used, with the reason. By verb and the resource's ending,
/// or RESOURCE.GROUP where only one group is meant.
const UNSEEN: &[(&str, &str, &str)] = &[
    ("list", "", "for API servers that do not stream the first list within the watch"),
    (
        "patch",
        "deployments.apps",
        "native Deployments: only the deprecated rollback annotation changes more than the status",
    ),
    (
        "update",
        "/finalizers",
        "sent by nobody: admission checks it for owner references that block a deletion",
    ),
    (
        "get",
        "pods",
        "settles a create whose reply was lost, which only a simulated API server does on demand",
    ),
    ("get", "persistentvolumeclaims", "the same"),
    ("get", "cronjobs", "settles a report that met a conflict"),
];

/// What every authenticated user may do by itself; `helm test` asks with it what the manager may do.
const EVERYBODYS: &[&str] = &["selfsubjectaccessreviews"];

#[tokio::test(flavor = "multi_thread")]
async fn used_and_granted_are_the_same() -> Result<()> {
    let client = connect().await?;
    let requests = AuditLog::whole()?.ours()?;
    let mut complaints = Vec::new();
    for user in IDENTITIES {
        let requests: Vec<&Request> = requests.iter().filter(|request| request.user == user).collect();
        ensure!(
            !requests.is_empty(),
            "{user} asked for nothing: does the cluster run a manager of that name?"
        );
        let granted = granted(&client, user).await?;
        ensure!(!granted.is_empty(), "nothing is granted to {user}");
        complaints.extend(forbidden(&requests, &granted));
        let used = used(requests.into_iter().filter(|request| !request.forbidden));
        // What has no resource is discovery and health, which everybody may ask for.
        let special =
            |access: &&Access| !access.resource.is_empty() && !EVERYBODYS.contains(&&*access.resource);
        for access in used.difference(&granted).filter(special) {
            complaints.push(format!("{user} used what no role of its own grants: {access}"));
        }
        for access in granted.difference(&used).filter(|access| !is_unseen(access)) {
            complaints.push(format!("{user} never used what is granted to it: {access}"));
        }
    }
    ensure!(complaints.is_empty(), "run this after all other tests:\n{}", complaints.join("\n"));
    Ok(())
}

/// An API server that has just started refuses what is granted until it has read the roles.
fn forbidden(requests: &[&Request], granted: &BTreeSet<Access>) -> BTreeSet<String> {
    let forbidden = requests.iter().filter(|request| request.forbidden && !granted.contains(&request.access));
    forbidden
        .map(|request| {
            format!("{} was forbidden to {} in {:?}", request.user, request.access, request.namespace)
        })
        .collect()
}

fn is_unseen(access: &Access) -> bool {
    let full = format!("{}.{}", access.resource, access.group);
    UNSEEN
        .iter()
        .any(|(verb, which, _)| access.verb == *verb && (access.resource.ends_with(which) || full == *which))
}

/// Every rule of every role that is bound to this user by name.
async fn granted(client: &Client, user: &str) -> Result<BTreeSet<Access>> {
    let all = ListParams::default();
    let mut granted = BTreeSet::new();
    for binding in Api::<ClusterRoleBinding>::all(client.clone()).list(&all).await?.items {
        if binds(binding.subjects.as_deref(), user) {
            granted.extend(rules(client, &binding.role_ref, None).await?);
        }
    }
    for binding in Api::<RoleBinding>::all(client.clone()).list(&all).await?.items {
        if binds(binding.subjects.as_deref(), user) {
            granted.extend(rules(client, &binding.role_ref, binding.namespace()).await?);
        }
    }
    Ok(granted)
}

fn binds(subjects: Option<&[Subject]>, user: &str) -> bool {
    subjects.unwrap_or_default().iter().any(|subject| match subject.kind.as_str() {
        "User" => subject.name == user,
        "ServiceAccount" => {
            let namespace = subject.namespace.as_deref().unwrap_or_default();
            user == format!("system:serviceaccount:{namespace}:{}", subject.name)
        }
        _ => false,
    })
}

async fn rules(client: &Client, role: &RoleRef, namespace: Option<String>) -> Result<Vec<Access>> {
    let rules = match namespace {
        Some(namespace) if role.kind == "Role" => {
            Api::<Role>::namespaced(client.clone(), &namespace).get(&role.name).await?.rules
        }
        _ => Api::<ClusterRole>::all(client.clone()).get(&role.name).await?.rules,
    };
    Ok(rules.unwrap_or_default().iter().flat_map(accesses).collect())
}

fn accesses(rule: &PolicyRule) -> Vec<Access> {
    let mut all = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                all.push(Access { group: group.clone(), resource: resource.clone(), verb: verb.clone() });
            }
        }
    }
    all
}
