//! ControllerRevisions, read as revisions of their owner's template.

use serde_json::{Value, json};

/// The revision's number, and its template in the shape that a ReplicaSet has.
pub(super) fn read(record: &Value) -> Option<(i64, Value)> {
    let number = record["revision"].as_i64()?;
    let mut template = record["data"]["spec"]["template"].clone();
    // It says that the template is replaced as a whole; it is no part of it.
    template.as_object_mut()?.remove("$patch");
    let metadata =
        json!({"name": record["metadata"]["name"], "annotations": record["metadata"]["annotations"]});
    Some((
        number,
        json!({"kind": "ControllerRevision", "metadata": metadata, "spec": {"template": template}}),
    ))
}
