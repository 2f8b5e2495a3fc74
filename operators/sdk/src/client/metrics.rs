//! What the client counts, under client-go's names.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::Method;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    code: String,
    host: String,
    method: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerbLabels {
    host: String,
    verb: String,
}

/// Counters of one [`super::Client`] and its clones.
#[derive(Clone, Debug)]
pub struct ClientMetrics {
    /// `HOST:PORT` of the API server; empty for one that is no server.
    host: Arc<OnceLock<String>>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<VerbLabels, Histogram, fn() -> Histogram>,
    fenced: Counter,
}

fn duration_histogram() -> Histogram {
    // client-go's buckets.
    Histogram::new([0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0])
}

impl Default for ClientMetrics {
    fn default() -> Self {
        Self {
            host: Arc::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(duration_histogram),
            fenced: Counter::default(),
        }
    }
}

impl ClientMetrics {
    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "rest_client_requests",
            "Requests to the API server by status code, host and method",
            self.requests.clone(),
        );
        registry.register(
            "rest_client_request_duration_seconds",
            "Time until the answer's header, by host and verb",
            self.durations.clone(),
        );
        registry.register(
            "trysail_fenced_writes",
            "Writes held back because this process does not lead",
            self.fenced.clone(),
        );
    }

    /// The first server that is connected to stays: a client has one.
    pub(crate) fn connects_to(&self, server: &http::Uri) {
        if let Some(authority) = server.authority() {
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            self.host.get_or_init(|| host.to_owned());
        }
    }

    fn host(&self) -> String {
        self.host.get().cloned().unwrap_or_default()
    }

    /// `code` is `<error>` when no answer came, as client-go says it.
    pub(crate) fn answered(&self, method: &Method, code: Option<u16>, took: Duration) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        let (host, method) = (self.host(), method.to_string());
        self.durations
            .get_or_create(&VerbLabels { host: host.clone(), verb: method.clone() })
            .observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { code, host, method }).inc();
    }

    pub(crate) fn held_back(&self) {
        self.fenced.inc();
    }

    /// How many requests with that method were answered with that code.
    pub fn requests(&self, method: &str, code: &str) -> u64 {
        let (code, host, method) = (code.to_owned(), self.host(), method.to_owned());
        self.requests.get_or_create(&RequestLabels { code, host, method }).get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dashboards of client-go's programs group by `host`.
    #[test]
    fn labels_are_client_gos() {
        let (metrics, mut registry) = (ClientMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        metrics.connects_to(&"https://10.0.0.1:6443/base".parse().unwrap());
        metrics.answered(&Method::PATCH, Some(200), Duration::from_millis(7));
        metrics.answered(&Method::GET, None, Duration::from_secs(70));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"rest_client_requests_total{code="200",host="10.0.0.1:6443",method="PATCH"} 1"#,
            r#"rest_client_requests_total{code="<error>",host="10.0.0.1:6443",method="GET"} 1"#,
            r#"rest_client_request_duration_seconds_count{host="10.0.0.1:6443",verb="PATCH"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert_eq!(metrics.requests("PATCH", "200"), 1);
    }
}
