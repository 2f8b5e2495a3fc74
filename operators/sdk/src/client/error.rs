//! What can go wrong between this process and the API server, and the one question worth asking about it:
//! was something changed?
//!
//! [`Error::class`] is the whole mapping from HTTP and transport errors to what a caller does next.

use std::time::Duration;

use serde::Deserialize;
use tower::BoxError;

use super::fence::FenceClosed;

/// The API server asks for seconds. What a proxy asks for during its maintenance is no reason to leave objects
/// alone for a day.
const LONGEST_WISH: Duration = Duration::from_secs(60);

/// A request that did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered, with a refusal.
    #[error("{what}: {status}")]
    Status {
        /// The request: verb and object.
        what: String,
        /// The answer.
        status: Box<Status>,
    },
    /// No answer came in time.
    #[error("{what}: no answer within {after:?}")]
    Timeout {
        /// The request: verb and object.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The fence held a write back.
    #[error("{what}: {source}")]
    Fenced {
        /// The request: verb and object.
        what: String,
        /// Why.
        source: FenceClosed,
    },
    /// The API server could not be reached, so nothing was sent.
    #[error("{what}: the API server cannot be reached: {}", chain(&**source))]
    Unreachable {
        /// The request: verb and object.
        what: String,
        /// Why.
        source: BoxError,
    },
    /// The connection broke after the request may have been sent.
    #[error("{what}: the connection broke: {}", chain(&**source))]
    Broken {
        /// The request: verb and object.
        what: String,
        /// How.
        source: BoxError,
    },
    /// The answer is not what was asked for.
    #[error("{what}: the answer cannot be read: {source}")]
    Decode {
        /// The request: verb and object.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The request cannot be built.
    #[error("{what}: the request cannot be built: {source}")]
    Request {
        /// The request: verb and object.
        what: String,
        /// Why.
        source: BoxError,
    },
    /// The kubeconfig or the in-cluster configuration cannot be used.
    #[error("the client configuration cannot be used: {0}")]
    Config(#[source] BoxError),
}

/// Causes of hyper's errors say what happened; their outermost text only says where.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// `metav1.Status`, as far as it is acted upon.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// HTTP status code.
    #[serde(default)]
    pub code: u16,
    /// One CamelCase word.
    #[serde(default)]
    pub reason: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// More about the reason.
    #[serde(default)]
    pub details: Option<Details>,
}

/// `metav1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Uid of the object that the answer is about.
    #[serde(default)]
    pub uid: Option<trysail_core::Uid>,
    /// When to ask again.
    #[serde(default)]
    pub retry_after_seconds: u64,
    /// Field errors and the like.
    #[serde(default)]
    pub causes: Option<Vec<Cause>>,
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Cause {
    /// One CamelCase word.
    #[serde(default)]
    pub reason: String,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.message.is_empty() { write!(f, "HTTP {}", self.code) } else { f.write_str(&self.message) }
    }
}

impl Status {
    /// Reads the body of an answer that is not 2xx; proxies answer in prose.
    pub(crate) fn from_answer(code: u16, retry_after: Option<u64>, body: &[u8]) -> Self {
        /// Prose of a proxy can be a page of HTML.
        const PROSE: usize = 300;
        let mut status = serde_json::from_slice::<Status>(body).unwrap_or_default();
        if status.message.is_empty() && status.reason.is_empty() {
            status.message = String::from_utf8_lossy(body).trim().chars().take(PROSE).collect();
        }
        status.code = code;
        if let Some(seconds) = retry_after {
            status.details.get_or_insert_default().retry_after_seconds = seconds;
        }
        status
    }

    fn has_cause(&self, reason: &str) -> bool {
        let causes = self.details.iter().filter_map(|details| details.causes.as_ref()).flatten();
        causes.into_iter().any(|cause| cause.reason == reason)
    }

    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds).min(LONGEST_WISH))
    }

    fn class(&self) -> Class {
        match (self.code, self.reason.as_str()) {
            (404, _) => Class::Gone,
            (409, "AlreadyExists") => Class::AlreadyExists,
            (409, _) => Class::Conflict,
            (410, _) => Class::Expired,
            (403, _) if self.has_cause("NamespaceTerminating") => Class::NamespaceTerminating,
            (401, _) => Class::Unauthorized,
            (429, _) => Class::Throttled(self.retry_after()),
            (400..=499, _) => Class::Refused,
            // Known to come before anything is stored, though the code is that of a server fault.
            (500, _) if self.is_admission_fault() || self.is_too_large() => Class::Refused,
            _ => Class::Unknown,
        }
    }

    /// A validating or mutating webhook that cannot be called.
    fn is_admission_fault(&self) -> bool {
        self.message.contains("failed calling webhook") || self.message.contains("failed to call webhook")
    }

    /// etcd's limit, below the API server's own.
    fn is_too_large(&self) -> bool {
        self.message.contains("request is too large")
    }
}

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The object changed since it was read: read again.
    Conflict,
    /// The name is taken: read who has it.
    AlreadyExists,
    /// There is no such object, namespace or resource.
    Gone,
    /// The resourceVersion is too old to watch from: list again.
    Expired,
    /// Quota, admission, validation, permission: nothing was changed, and the same request is refused again
    /// until someone changes something.
    Refused,
    /// The namespace is being deleted: nothing can be created in it any more.
    NamespaceTerminating,
    /// Nothing was changed; ask again after that time.
    Throttled(Option<Duration>),
    /// Our credentials are not accepted: nothing was changed.
    Unauthorized,
    /// It may or may not have been done.
    Unknown,
    /// It never left this process.
    NotSent,
    /// The fence held it back: it never left this process.
    Fenced,
}

impl Error {
    /// The one thing to branch on. For reads `Unknown` means: no answer.
    pub fn class(&self) -> Class {
        match self {
            Error::Status { status, .. } => status.class(),
            // An answer that cannot be read may be that of a proxy; whether the request was done is open.
            Error::Timeout { .. } | Error::Broken { .. } | Error::Decode { .. } => Class::Unknown,
            Error::Fenced { .. } => Class::Fenced,
            Error::Unreachable { .. } | Error::Request { .. } | Error::Config(_) => Class::NotSent,
        }
    }

    /// The API server's answer, if there was one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Status { status, .. } => Some(status),
            _ => None,
        }
    }

    /// The words to show to people: the server's own where there are any.
    pub fn message(&self) -> String {
        self.status().map_or_else(|| self.to_string(), ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: u16, body: &str) -> Class {
        Error::Status {
            what: String::new(),
            status: Box::new(Status::from_answer(code, None, body.as_bytes())),
        }
        .class()
    }

    #[test]
    fn answers_are_classified_by_what_became_of_the_write() {
        for (code, body, expected) in [
            (
                409,
                r#"{"reason":"AlreadyExists","message":"pods \"a\" already exists"}"#,
                Class::AlreadyExists,
            ),
            (409, r#"{"reason":"Conflict","message":"the object has been modified"}"#, Class::Conflict),
            (404, r#"{"reason":"NotFound"}"#, Class::Gone),
            (410, r#"{"reason":"Expired"}"#, Class::Expired),
            (422, r#"{"reason":"Invalid"}"#, Class::Refused),
            (403, r#"{"reason":"Forbidden","message":"exceeded quota"}"#, Class::Refused),
            (
                403,
                r#"{"reason":"Forbidden","details":{"causes":[{"reason":"NamespaceTerminating"}]}}"#,
                Class::NamespaceTerminating,
            ),
            (429, r#"{"details":{"retryAfterSeconds":3}}"#, Class::Throttled(Some(Duration::from_secs(3)))),
            // A wish without measure is not granted.
            (
                429,
                r#"{"details":{"retryAfterSeconds":18446744073709551615}}"#,
                Class::Throttled(Some(LONGEST_WISH)),
            ),
            (500, r#"{"message":"Internal error occurred: failed calling webhook \"x\""}"#, Class::Refused),
            (500, r#"{"message":"etcdserver: request is too large"}"#, Class::Refused),
            (500, r#"{"message":"etcdserver: request timed out"}"#, Class::Unknown),
            (503, "upstream connect error", Class::Unknown),
            (504, r#"{"reason":"Timeout"}"#, Class::Unknown),
            (401, r#"{"reason":"Unauthorized"}"#, Class::Unauthorized),
        ] {
            assert_eq!(class(code, body), expected, "{code} {body}");
        }
    }

    #[test]
    fn prose_of_a_proxy_is_quoted_and_cut() {
        let page = "x".repeat(10_000);
        let status = Status::from_answer(502, None, page.as_bytes());
        assert_eq!(status.to_string().len(), 300);
    }
}
