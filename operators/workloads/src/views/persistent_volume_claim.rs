//! PersistentVolumeClaims, as far as their owners are concerned.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use trysail_core::{Meta, slim_object};

/// What decisions read of a PersistentVolumeClaim: who it goes with.
#[derive(Clone, Debug, PartialEq)]
pub struct PersistentVolumeClaim {
    /// Metadata.
    pub meta: Meta,
    /// `metadata.ownerReferences` as they came: a patch writes the whole list.
    pub owners: Vec<Value>,
}

slim_object!(PersistentVolumeClaim);

#[derive(Deserialize)]
struct Wire {
    metadata: Value,
}

impl<'de> Deserialize<'de> for PersistentVolumeClaim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { mut metadata } = Wire::deserialize(deserializer)?;
        let owners = match metadata.get_mut("ownerReferences").map(Value::take) {
            Some(Value::Array(owners)) => owners,
            _ => Vec::new(),
        };
        metadata["ownerReferences"] = owners.clone().into();
        // Through text: metadata borrows strings, which a parsed value does not lend.
        let meta = serde_json::from_str(&metadata.to_string()).map_err(serde::de::Error::custom)?;
        Ok(Self { meta, owners })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_kept_to_the_letter() {
        let text = r#"{"metadata":{"name":"data-db-0","namespace":"shop","resourceVersion":"7",
            "ownerReferences":[{"apiVersion":"x/v1","kind":"Keeper","name":"k","uid":"u","future":1}]},
            "spec":{"volumeName":"pv"},"status":{"phase":"Bound"}}"#;
        let claim: PersistentVolumeClaim = serde_json::from_str(text).unwrap();
        assert_eq!((claim.meta.resource_version, claim.meta.controller.clone()), (7, None));
        assert_eq!(claim.owners[0]["future"], 1);
        let bare: PersistentVolumeClaim =
            serde_json::from_str(r#"{"metadata":{"name":"a","ownerReferences":null}}"#).unwrap();
        assert!(bare.owners.is_empty());
    }
}
