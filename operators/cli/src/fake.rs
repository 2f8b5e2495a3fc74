//! An API server in memory, for tests of what is sent and in which order. It keeps objects by path and knows merge
//! patches, preconditions, finalizers, and a garbage collector of the least helpful kind: one that has not seen any
//! owner's children when it lets the owner go, and sees all of them afterwards.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Method, Request, Response, StatusCode};
use kube::{
    Client,
    client::Body,
    core::{Status, response::StatusDetails},
};
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Objects by path, such as `/api/v1/namespaces/shop/pods/a`.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    log: Vec<String>,
    conflicts: usize,
    full_budgets: usize,
}

impl Fake {
    /// Holds these objects.
    pub(crate) fn with(objects: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let fake = Self::default();
        for (path, object) in objects {
            let mut state = fake.state();
            state.put(path, object);
        }
        fake
    }

    pub(crate) fn cluster(&self) -> Cluster {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                Ok::<_, kube::Error>(fake.state().answer(&parts.method, &parts.uri, &body))
            }
        });
        Cluster::with_client(Client::new(service, "shop"))
    }

    /// The next writes are refused, as if someone else had been faster.
    pub(crate) fn refuse_writes(&self, times: usize) {
        self.state().conflicts = times;
    }

    /// The next evictions are refused, as a disruption budget does.
    pub(crate) fn refuse_evictions(&self, times: usize) {
        self.state().full_budgets = times;
    }

    /// The object at that path.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    /// Somebody changes the object at that path.
    pub(crate) fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(path).unwrap();
        change(&mut object);
        self.state().put(path, object);
    }

    /// Writes, in order, as `PATCH /path`.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.state().log.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object);
    }

    fn answer(&mut self, method: &Method, uri: &http::Uri, body: &Value) -> Response<Body> {
        let path = uri.path().to_owned();
        if *method != Method::GET {
            self.log.push(format!("{method} {path}"));
            if self.conflicts > 0 {
                self.conflicts -= 1;
                return refusal(StatusCode::CONFLICT, &path);
            }
        }
        if let Some(pod) = path.strip_suffix("/eviction") {
            return self.evict(pod);
        }
        let Some(object) = self.objects.get(&path).cloned() else {
            let last = path.rsplit('/').next().unwrap_or_default();
            let is_collection = last.ends_with('s') && *method == Method::GET;
            return if is_collection {
                self.list(last, &path)
            } else {
                refusal(StatusCode::NOT_FOUND, &path)
            };
        };
        let expected = if *method == Method::DELETE { &body["preconditions"] } else { &body["metadata"] };
        for field in ["resourceVersion", "uid"] {
            if expected[field].is_string() && expected[field] != object["metadata"][field] {
                return refusal(StatusCode::CONFLICT, &path);
            }
        }
        let mut after = object;
        match *method {
            Method::PATCH => {
                merge(&mut after, body);
                self.put(&path, after.clone());
            }
            Method::DELETE => {
                let metadata = &mut after["metadata"];
                metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                let collector = match body["propagationPolicy"].as_str() {
                    Some("Orphan") => Some("orphan"),
                    Some("Foreground") => Some(FOREGROUND),
                    _ => None,
                };
                let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
                finalizers.extend(collector.map(Value::from));
                metadata["finalizers"] = finalizers.into();
                self.put(&path, after.clone());
            }
            _ => {}
        }
        if *method != Method::GET {
            self.collect();
        }
        respond(StatusCode::OK, &after)
    }

    fn evict(&mut self, pod: &str) -> Response<Body> {
        if self.full_budgets > 0 {
            self.full_budgets -= 1;
            return refusal(StatusCode::TOO_MANY_REQUESTS, pod);
        }
        match self.objects.remove(pod) {
            Some(_) => respond(StatusCode::CREATED, &json!({"kind": "Status", "status": "Success"})),
            None => refusal(StatusCode::NOT_FOUND, pod),
        }
    }

    fn list(&self, plural: &str, path: &str) -> Response<Body> {
        // `/apis/g/v1/pods` lists every namespace, `/apis/g/v1/namespaces/n/pods` one of them.
        let prefix = path.split("/namespaces/").next().unwrap_or_default().trim_end_matches(plural);
        let namespaced = path.contains("/namespaces/").then(|| format!("{path}/"));
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(held, _)| {
                held.starts_with(prefix.trim_end_matches('/')) && held.contains(&format!("/{plural}/"))
            })
            .filter(|(held, _)| namespaced.as_ref().is_none_or(|namespaced| held.starts_with(namespaced)))
            .map(|(_, object)| object)
            .collect();
        respond(StatusCode::OK, &json!({"metadata": {}, "items": items}))
    }

    fn collect(&mut self) {
        loop {
            let before = self.objects.clone();
            self.serve_finalizers();
            self.objects.retain(|_, object| !is_going(object) || has_finalizers(object));
            let uids: Vec<Value> = self.objects.values().map(uid).collect();
            let is_left = |object: &Value| {
                let owners = owners(object);
                !owners.is_empty() && !owners.iter().any(|owner| uids.contains(owner))
            };
            self.objects.values_mut().filter(|object| is_left(object)).for_each(go);
            if self.objects == before {
                return;
            }
        }
    }

    /// The garbage collector's own finalizers.
    fn serve_finalizers(&mut self) {
        let waiting =
            |object: &Value| is_going(object) && finalizers(object).iter().any(|name| name == FOREGROUND);
        let foreground: Vec<Value> =
            self.objects.values().filter(|object| waiting(object)).map(uid).collect();
        let is_child = |object: &Value| owners(object).iter().any(|owner| foreground.contains(owner));
        self.objects.values_mut().filter(|object| is_child(object)).for_each(go);
        let awaited: Vec<Value> = self.objects.values().flat_map(owners).collect();
        for object in self.objects.values_mut() {
            let is_awaiting = awaited.contains(&uid(object));
            let finalizers = object.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut);
            if let Some(finalizers) = finalizers {
                finalizers.retain(|name| name != "orphan" && (is_awaiting || name != FOREGROUND));
            }
        }
    }
}

const FOREGROUND: &str = "foregroundDeletion";

fn uid(object: &Value) -> Value {
    object["metadata"]["uid"].clone()
}

fn owners(object: &Value) -> Vec<Value> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().map(|owner| owner["uid"].clone()).collect()
}

fn finalizers(object: &Value) -> Vec<Value> {
    object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default()
}

fn has_finalizers(object: &Value) -> bool {
    !finalizers(object).is_empty()
}

fn is_going(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

fn go(object: &mut Value) {
    object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    for (key, change) in patch {
        if change.is_null() {
            target.as_object_mut().map(|members| members.remove(key));
        } else {
            merge(crate::edit::at(target, &[key]), change);
        }
    }
}

fn refusal(code: StatusCode, path: &str) -> Response<Body> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let details: StatusDetails = serde_json::from_value(json!({"name": name})).unwrap();
    let status = Status::failure(code.as_str(), "").with_code(code.as_u16()).with_details(details);
    respond(code, &serde_json::to_value(status).unwrap())
}

fn respond(code: StatusCode, body: &Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
}
