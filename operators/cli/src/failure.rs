//! What an API server's refusal means to a person: what was tried, why it failed, what to do next.

use std::fmt;

use trysail_core::Resource;

use crate::kind::qualified;

/// A request about to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    verb: &'static str,
    resource: Resource,
    namespace: String,
    name: Option<String>,
    server: String,
}

/// A request that failed, and how.
#[derive(Debug)]
pub(crate) struct Failure {
    attempt: Box<Attempt>,
    pub(crate) cause: Cause,
}

/// What callers act upon.
#[derive(Debug)]
pub(crate) enum Cause {
    /// The object does not exist.
    NotFound,
    /// The server does not know the kind.
    NotServed,
    /// RBAC or admission says no.
    Forbidden(String),
    /// Someone else was faster.
    Conflict(String),
    /// Not now: a disruption budget, or a busy server.
    TooManyRequests(String),
    /// Any other answer of the server.
    Refused(String),
    /// The server does not know who asks.
    Unauthorized(String),
    /// No answer.
    Unreachable(String),
    /// An answer or a configuration that makes no sense.
    Other(String),
}

impl Attempt {
    pub(crate) fn new(verb: &'static str, resource: Resource, namespace: &str, server: &str) -> Self {
        Self { verb, resource, namespace: namespace.to_owned(), name: None, server: server.to_owned() }
    }

    /// At that object.
    #[must_use]
    pub(crate) fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Gives a cause to kube's error.
    pub(crate) fn failed(self, error: kube::Error) -> Failure {
        let cause = match error {
            kube::Error::Api(status) => {
                // Only an answer about an object names one; for an unknown kind the server has no such page.
                let names_an_object = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
                let message = status.message.clone();
                match status.code {
                    401 => Cause::Unauthorized(message),
                    403 => Cause::Forbidden(message),
                    404 if names_an_object => Cause::NotFound,
                    404 => Cause::NotServed,
                    409 => Cause::Conflict(message),
                    429 => Cause::TooManyRequests(message),
                    _ => Cause::Refused(message),
                }
            }
            kube::Error::HyperError(error) => Cause::Unreachable(chain(&error)),
            kube::Error::Service(error) => Cause::Unreachable(chain(&*error)),
            kube::Error::Auth(error) => Cause::Unauthorized(chain(&error)),
            error => Cause::Other(chain(&error)),
        };
        self.because(cause)
    }

    /// With a cause known already.
    pub(crate) fn because(self, cause: Cause) -> Failure {
        Failure { attempt: Box::new(self), cause }
    }
}

/// An error and what caused it, without saying anything twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attempt { verb, resource, namespace, name, server } = &*self.attempt;
        let kind = qualified(*resource);
        let subject = name.as_ref().map_or_else(|| kind.clone(), |name| format!("{kind} \"{name}\""));
        let place = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") };
        match &self.cause {
            Cause::NotFound => write!(f, "{subject} not found{place}"),
            Cause::NotServed if resource.group.ends_with("trysail.dev") => write!(
                f,
                "the cluster does not serve {kind}: its CustomResourceDefinition is not installed. Install it with\n  \
                 helm install trysail charts/trysail-workloads --namespace trysail-system --create-namespace"
            ),
            Cause::NotServed => {
                write!(f, "the API server {server} does not serve {kind}; is it a Kubernetes API server?")
            }
            Cause::Forbidden(message) => write!(
                f,
                "cannot {verb} {subject}{place}: {message}\n  your role needs the verb \"{verb}\" on {kind}"
            ),
            Cause::Conflict(message) => {
                write!(f, "cannot {verb} {subject}{place}: {message}; it changed in the meantime, try again")
            }
            Cause::Unauthorized(message) => write!(
                f,
                "the API server {server} does not accept your credentials: {message}\n  log in again, or choose \
                 another user with --context or --kubeconfig"
            ),
            Cause::Unreachable(message) => write!(
                f,
                "cannot reach the API server {server}: {message}\n  is the cluster up, and is this the right \
                 --context? `kubectl config current-context` tells which one is used"
            ),
            Cause::TooManyRequests(message) | Cause::Refused(message) | Cause::Other(message) => {
                write!(f, "cannot {verb} {subject}{place}: {message}")
            }
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use kube::core::{Status, response::StatusDetails};
    use trysail_core::Face;

    use super::*;

    fn said(face: Face, status: Status) -> String {
        let attempt = Attempt::new("get", Resource::deployments(face), "shop", "https://h:6443/").name("web");
        attempt.failed(kube::Error::Api(status.boxed())).to_string()
    }

    #[test]
    fn each_refusal_names_what_failed_and_what_to_do() {
        let details: StatusDetails = serde_json::from_str(r#"{"name": "web"}"#).unwrap();
        let missing = Status::failure("deployments \"web\" not found", "NotFound").with_code(404);
        let page = Status::failure("404 page not found", "").with_code(404);
        let forbidden = Status::failure("User \"ann\" cannot get", "Forbidden").with_code(403);
        insta::assert_snapshot!([
            said(Face::Crd, missing.with_details(details)),
            said(Face::Crd, page.clone()),
            said(Face::Native, page),
            said(Face::Crd, forbidden),
            said(Face::Crd, Status::failure("Unauthorized", "").with_code(401)),
            said(Face::Crd, Status::failure("spec.replicas: too many", "Invalid").with_code(422)),
        ].join("\n"), @r#"
        deployments.apps.trysail.dev "web" not found in namespace shop
        the cluster does not serve deployments.apps.trysail.dev: its CustomResourceDefinition is not installed. Install it with
          helm install trysail charts/trysail-workloads --namespace trysail-system --create-namespace
        the API server https://h:6443/ does not serve deployments.apps; is it a Kubernetes API server?
        cannot get deployments.apps.trysail.dev "web" in namespace shop: User "ann" cannot get
          your role needs the verb "get" on deployments.apps.trysail.dev
        the API server https://h:6443/ does not accept your credentials: Unauthorized
          log in again, or choose another user with --context or --kubeconfig
        cannot get deployments.apps.trysail.dev "web" in namespace shop: spec.replicas: too many
        "#);
    }
}
