//! Which part of a collection an informer keeps, and the requests for it.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use http::{Request, header};
use kube::client::Body;
use trysail_core::{Resource, Selector, Symbol};

use crate::client::Deadline;

/// Which objects of a resource are kept. Two informers of one resource are two watches: prefer
/// [`Scope::all`] and an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    namespace: Option<Symbol>,
    labels: Option<Selector>,
    fields: Option<Arc<str>>,
}

impl Scope {
    /// Every object in every namespace.
    pub fn all() -> Self {
        Self::default()
    }

    /// Every object of one namespace.
    pub fn namespace(namespace: impl Into<Symbol>) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::default() }
    }

    /// Only objects whose labels match.
    #[must_use]
    pub fn with_labels(self, labels: Selector) -> Self {
        Self { labels: Some(labels), ..self }
    }

    /// Only objects whose fields match, as in `spec.nodeName=w1`.
    #[must_use]
    pub fn with_fields(self, fields: impl Into<Arc<str>>) -> Self {
        Self { fields: Some(fields.into()), ..self }
    }

    /// True when a write in that namespace can show in this scope.
    pub(crate) fn covers(&self, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|own| own == namespace)
    }

    fn uri(&self, resource: &Resource) -> String {
        let mut uri = resource.path(self.namespace.as_deref(), None, None);
        uri.push('?');
        if let Some(labels) = &self.labels {
            parameter(&mut uri, "labelSelector", &labels.to_string());
        }
        if let Some(fields) = &self.fields {
            parameter(&mut uri, "fieldSelector", fields);
        }
        uri
    }

    /// A watch from `version` on; without one, a streaming list that goes on as a watch. That list is
    /// consistent: it asks for no version. "0" would be answered from whatever a cache holds, and a controller
    /// that starts from an old state makes its pods twice.
    pub(super) fn watch(
        &self,
        resource: &Resource,
        version: Option<u64>,
        lifetime: Duration,
    ) -> Result<Request<Body>, http::Error> {
        let mut uri = self.uri(resource);
        parameter(&mut uri, "watch", "true");
        parameter(&mut uri, "allowWatchBookmarks", "true");
        parameter(&mut uri, "timeoutSeconds", &lifetime.as_secs().to_string());
        match version {
            Some(version) => parameter(&mut uri, "resourceVersion", &version.to_string()),
            None => {
                parameter(&mut uri, "sendInitialEvents", "true");
                parameter(&mut uri, "resourceVersionMatch", "NotOlderThan");
            }
        }
        // Compressed events would arrive in bursts, and cost more to unpack than loopback or a LAN saves.
        Request::get(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Body::empty())
    }

    /// One page of a consistent list.
    pub(super) fn page(
        &self,
        resource: &Resource,
        limit: u32,
        next: &str,
        deadline: Duration,
    ) -> Result<Request<Body>, http::Error> {
        let mut uri = self.uri(resource);
        parameter(&mut uri, "limit", &limit.to_string());
        if !next.is_empty() {
            parameter(&mut uri, "continue", next);
        }
        let request = Request::get(uri).header(header::ACCEPT, "application/json");
        request.extension(Deadline(deadline)).body(Body::empty())
    }
}

fn parameter(uri: &mut String, name: &str, value: &str) {
    if !uri.ends_with('?') {
        uri.push('&');
    }
    uri.push_str(name);
    uri.push('=');
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => uri.push(byte.into()),
            // Writing to a String cannot fail.
            _ => drop(write!(uri, "%{byte:02X}")),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "namespace {namespace}")?,
            None => f.write_str("all namespaces")?,
        }
        if let Some(labels) = &self.labels {
            write!(f, ", labels {labels}")?;
        }
        if let Some(fields) = &self.fields {
            write!(f, ", fields {fields}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use trysail_core::resource::PODS;

    use super::*;

    fn uri(request: Result<Request<Body>, http::Error>) -> String {
        request.unwrap().uri().to_string()
    }

    /// A list that asks for version 0 may be answered from the past.
    #[test]
    fn no_list_asks_for_an_old_state() {
        let hour = Duration::from_secs(3600);
        assert_eq!(
            uri(Scope::all().watch(&PODS, None, hour)),
            "/api/v1/pods?watch=true&allowWatchBookmarks=true&timeoutSeconds=3600\
             &sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        );
        assert_eq!(uri(Scope::all().page(&PODS, 500, "", hour)), "/api/v1/pods?limit=500");
        assert!(uri(Scope::all().watch(&PODS, Some(7), hour)).ends_with("&resourceVersion=7"));
    }

    #[test]
    fn selectors_are_escaped() {
        let labels = Selector::from_labels([("app.io/name", "web")].into_iter().collect());
        let scope = Scope::namespace("shop").with_labels(labels).with_fields("spec.nodeName=w1");
        assert_eq!(
            uri(scope.page(&PODS, 1, "a+b", Duration::ZERO)),
            "/api/v1/namespaces/shop/pods?labelSelector=app.io%2Fname%3Dweb&fieldSelector=spec.nodeName%3Dw1\
             &limit=1&continue=a%2Bb"
        );
    }
}
