//! Annotations as decisions read them: all but the one that repeats the whole object.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny},
};
use trysail_core::{Labels, Symbol};

/// `kubectl apply` keeps the manifest here. Nobody decides by it, so it is not kept in memory.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// `metadata.annotations` without [`LAST_APPLIED`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations(pub Labels);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings, or null")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut pairs: Vec<(Symbol, Symbol)> = Vec::new();
                while let Some(key) = map.next_key::<Symbol>()? {
                    if key == LAST_APPLIED {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        pairs.push((key, map.next_value()?));
                    }
                }
                Ok(Annotations(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_applied_manifest_is_not_kept() {
        let text = format!(r#"{{"{LAST_APPLIED}":"{{}}","team":"shop"}}"#);
        let Annotations(pairs) = serde_json::from_str(&text).unwrap();
        assert_eq!(pairs.iter().collect::<Vec<_>>(), [("team", "shop")]);
        assert_eq!(serde_json::from_str::<Annotations>("null").unwrap(), Annotations::default());
    }
}
