//! The network between a client and the API server, with someone sitting on the line.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::{Value, json};
use trysail_sdk::client::{Client, Options};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type Answer = Result<Response<Body>, BoxError>;

/// The other end of the line.
#[derive(Clone)]
pub(crate) struct Far(kube::Client);

impl Far {
    /// Lets a request pass.
    pub(crate) async fn pass(&self, request: Request<kube::client::Body>) -> Answer {
        let answer = self.0.send(request).await?;
        Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

/// A client whose requests are handed to `on_the_line`.
pub(crate) fn tapped<F>(server: &Client, options: Options, on_the_line: F) -> Client
where
    F: Fn(Far, Request<kube::client::Body>) -> BoxFuture<'static, Answer> + Clone + Send + Sync + 'static,
{
    let far = Far(server.kube());
    Client::over_service(tower::service_fn(move |request| on_the_line(far.clone(), request)), options)
        .unwrap()
}

/// A client with nobody at the other end but a script.
pub(crate) fn scripted<F>(options: Options, script: F) -> Client
where
    F: Fn(Request<kube::client::Body>) -> BoxFuture<'static, Answer> + Clone + Send + Sync + 'static,
{
    Client::over_service(tower::service_fn(script), options).unwrap()
}

/// An answer with a JSON body.
pub(crate) fn answer(code: u16, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed_unsync();
    Ok(Response::builder().status(code).body(body)?)
}

/// A refusal as the API server words it.
pub(crate) fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    answer(code, &json!({"kind": "Status", "code": code, "reason": reason, "message": message}))
}

/// What has gone over the line: `METHOD URI`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn note(&self, request: &Request<kube::client::Body>) {
        self.0.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(part)).count()
    }
}
