//! `set image`: which containers of a template get which image.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::edit::at;

/// `CONTAINER=IMAGE`; the container `*` means all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    container: String,
    image: String,
}

/// Reads `CONTAINER=IMAGE …`.
pub(crate) fn parse(words: &[String]) -> Result<Vec<Update>> {
    let mut updates: Vec<Update> = Vec::with_capacity(words.len());
    for word in words {
        let Some((container, image)) = word.split_once('=') else {
            bail!("\"{word}\" is no image update; write CONTAINER=IMAGE, for example nginx=nginx:1.29");
        };
        if container.is_empty() || image.is_empty() {
            bail!(
                "\"{word}\" lacks {}",
                if container.is_empty() { "the container's name" } else { "the image" }
            );
        }
        if updates.iter().any(|update| update.container == container) {
            bail!("container \"{container}\" is given twice");
        }
        updates.push(Update { container: container.to_owned(), image: image.to_owned() });
    }
    match updates.len() {
        0 => bail!("at least one image update is required: CONTAINER=IMAGE"),
        2.. if updates.iter().any(|update| update.container == "*") => {
            bail!("all containers are already specified by *, but saw more than one CONTAINER=IMAGE pair")
        }
        _ => Ok(updates),
    }
}

/// The workload with those images in its template.
pub(crate) fn set(object: &Value, updates: &[Update]) -> Result<Value> {
    let mut changed = object.clone();
    let spec = at(&mut changed, &["spec", "template", "spec"]);
    for Update { container, image } in updates {
        let mut found = false;
        for list in ["initContainers", "containers"] {
            for held in spec[list].as_array_mut().into_iter().flatten() {
                if container == "*" || held["name"] == container.as_str() {
                    held["image"] = image.as_str().into();
                    found = true;
                }
            }
        }
        if !found {
            let known = names(spec).join(", ");
            bail!("unable to find container named \"{container}\" (the template has: {known})");
        }
    }
    Ok(changed)
}

fn names(spec: &Value) -> Vec<&str> {
    ["initContainers", "containers"]
        .iter()
        .flat_map(|list| spec[*list].as_array().into_iter().flatten())
        .filter_map(|container| container["name"].as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn workload() -> Value {
        json!({"spec": {"template": {"spec": {
            "initContainers": [{"name": "init", "image": "i:1"}],
            "containers": [{"name": "web", "image": "w:1", "args": ["x"]}, {"name": "side", "image": "s:1"}]}}}})
    }

    fn images(object: &Value) -> String {
        let spec = &object["spec"]["template"]["spec"];
        let lists = [&spec["initContainers"], &spec["containers"]];
        let images =
            lists.iter().flat_map(|list| list.as_array().unwrap()).map(|c| c["image"].as_str().unwrap());
        images.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn named_containers_change_and_others_stay() {
        for (text, expected) in [
            ("web=w:2", "i:1 w:2 s:1"),
            ("side=reg:5000/s@sha256:ab init=i:2", "i:2 w:1 reg:5000/s@sha256:ab"),
            ("*=one", "one one one"),
        ] {
            let changed = set(&workload(), &parse(&words(text)).unwrap()).unwrap();
            assert_eq!(images(&changed), expected);
            assert_eq!(changed["spec"]["template"]["spec"]["containers"][0]["args"], json!(["x"]));
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = set(&workload(), &parse(&words("nginx=x")).unwrap()).unwrap_err().to_string();
        assert_eq!(error, "unable to find container named \"nginx\" (the template has: init, web, side)");
        for bad in ["", "web", "web=", "=x", "*=a web=b", "web=a web=b"] {
            assert!(parse(&words(bad)).is_err(), "{bad}");
        }
    }
}
