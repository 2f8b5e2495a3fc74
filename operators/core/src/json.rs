//! JSON that is sent: built values beside raw bytes that are spliced in unparsed.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, value::RawValue};

/// A body to send. A pod template is spliced in as the bytes the server once sent (`Raw`), so fields newer
/// than our types survive and nothing is parsed on the way.
#[derive(Clone)]
pub enum Json {
    /// A built value.
    Value(Value),
    /// An object whose members may be raw.
    Object(Vec<(&'static str, Json)>),
    /// Bytes as received.
    Raw(Arc<RawValue>),
}

impl Json {
    /// A text to be sent byte for byte; `None` when it is not JSON.
    pub fn verbatim(text: String) -> Option<Self> {
        RawValue::from_string(text).ok().map(|raw| Json::Raw(raw.into()))
    }

    /// The whole as one parsed value: for tests, dry runs and simulated servers.
    pub fn to_value(&self) -> Value {
        match self {
            Json::Value(value) => value.clone(),
            Json::Object(members) => {
                Value::Object(members.iter().map(|(k, v)| ((*k).to_owned(), v.to_value())).collect())
            }
            // A RawValue was parsed when it was made: it is JSON.
            Json::Raw(raw) => serde_json::from_str(raw.get()).unwrap_or(Value::Null),
        }
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Json::Value(value)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Value(value) => value.serialize(serializer),
            Json::Raw(raw) => raw.serialize(serializer),
            Json::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.to_value() == other.to_value()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match serde_json::to_string(self) {
            Ok(text) => f.write_str(&text),
            Err(_) => Err(fmt::Error),
        }
    }
}
