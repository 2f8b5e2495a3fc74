//! What the client counts, under client-go's names.

use std::time::Duration;

use http::Method;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    code: String,
    method: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerbLabels {
    verb: String,
}

/// Counters of one [`super::Client`] and its clones.
#[derive(Clone, Debug)]
pub struct ClientMetrics {
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
            "Requests to the API server by status code and method",
            self.requests.clone(),
        );
        registry.register(
            "rest_client_request_duration_seconds",
            "Time until the answer's header, by verb",
            self.durations.clone(),
        );
        registry.register(
            "trysail_fenced_writes",
            "Writes held back because this process does not lead",
            self.fenced.clone(),
        );
    }

    /// `code` is `<error>` when no answer came, as client-go says it.
    pub(crate) fn answered(&self, method: &Method, code: Option<u16>, took: Duration) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        self.requests.get_or_create(&RequestLabels { code, method: method.to_string() }).inc();
        self.durations.get_or_create(&VerbLabels { verb: method.to_string() }).observe(took.as_secs_f64());
    }

    pub(crate) fn held_back(&self) {
        self.fenced.inc();
    }

    /// How many requests with that method were answered with that code.
    pub fn requests(&self, method: &str, code: &str) -> u64 {
        self.requests.get_or_create(&RequestLabels { code: code.to_owned(), method: method.to_owned() }).get()
    }
}
