//! The OCI image layout: the JSON documents that describe layers, and the archive that holds them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use super::layer::Layer;
use super::recipe::{Recipe, Run};

/// Changes whenever this file writes something else for the same recipe: it is part of every archive's name.
pub(crate) const FORMAT: &str = "1";

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// The annotation by which containerd's import learns an image's name.
const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// One image: its documents, and its layers on disk.
#[derive(Debug)]
pub(crate) struct Image {
    reference: String,
    config: Vec<u8>,
    manifest: Vec<u8>,
    layers: Vec<Layer>,
}

impl Image {
    pub(crate) fn new(recipe: &Recipe, layers: Vec<Layer>) -> Result<Image> {
        Image::describe(recipe.reference, recipe.run, layers)
    }

    fn describe(reference: &str, run: Run, layers: Vec<Layer>) -> Result<Image> {
        let mut settings = json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            // Keeps two versions of equal content apart: a node knows an image by the digest of this document.
            "Labels": { "dev.trysail.image": reference },
        });
        for (name, words) in [("Entrypoint", run.entrypoint), ("Cmd", run.cmd)] {
            if !words.is_empty() {
                settings[name] = json!(words);
            }
        }
        if !run.user.is_empty() {
            settings["User"] = json!(run.user);
        }
        let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", layer.digest)).collect();
        let config = to_bytes(&json!({
            "architecture": architecture()?,
            "os": "linux",
            "config": settings,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }))?;
        let descriptors: Vec<_> =
            layers.iter().map(|layer| descriptor(LAYER_TYPE, &layer.digest, layer.size)).collect();
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, &digest(&config), config.len() as u64),
            "layers": descriptors,
        }))?;
        Ok(Image { reference: reference.to_owned(), config, manifest, layers })
    }
}

/// Writes `images` as one archive; a blob that several of them have is in it once.
pub(crate) fn write_archive(images: &[Image], path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    let mut archive = Builder::new(BufWriter::new(file));
    let entries = images
        .iter()
        .map(|image| {
            let mut entry = descriptor(MANIFEST_TYPE, &digest(&image.manifest), image.manifest.len() as u64);
            entry["annotations"] = json!({ NAME_ANNOTATION: image.reference });
            entry
        })
        .collect::<Vec<_>>();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries });
    add(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut archive, "index.json", &to_bytes(&index)?)?;

    let mut written = BTreeSet::new();
    for image in images {
        for document in [&image.manifest, &image.config] {
            let digest = digest(document);
            if written.insert(digest.clone()) {
                add(&mut archive, &blob_path(&digest), document)?;
            }
        }
        for layer in &image.layers {
            if written.insert(layer.digest.clone()) {
                let content = File::open(&layer.path)
                    .with_context(|| format!("failed to open the layer {}", layer.path.display()))?;
                add_from(&mut archive, &blob_path(&layer.digest), layer.size, content)?;
            }
        }
    }
    archive.into_inner()?.flush().with_context(|| format!("failed to write {}", path.display()))
}

/// One blob of an archive, where it is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    /// `sha256:…`
    pub(crate) digest: String,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// What has to be sent to a registry for one image, read back from an archive.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) manifest: Vec<u8>,
    /// Config and layers.
    pub(crate) blobs: Vec<Blob>,
}

/// Finds `reference` in the archive at `path`.
pub(crate) fn read_archive(path: &Path, reference: &str) -> Result<Contents> {
    let context = || format!("failed to read {}", path.display());
    let mut archive = tar::Archive::new(File::open(path).with_context(context)?);
    let mut small = std::collections::BTreeMap::new();
    let mut blobs = Vec::new();
    for entry in archive.entries().with_context(context)? {
        let mut entry = entry.with_context(context)?;
        let name = entry.path().with_context(context)?.display().to_string();
        let (offset, size) = (entry.raw_file_position(), entry.size());
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            blobs.push(Blob { digest: format!("sha256:{hex}"), offset, size });
        }
        if size < MAX_DOCUMENT {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).with_context(context)?;
            small.insert(name, bytes);
        }
    }
    let document = |name: &str| small.get(name).with_context(|| format!("{} has no {name}", path.display()));
    let index: Value = serde_json::from_slice(document("index.json")?).with_context(context)?;
    let entry = index["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["annotations"][NAME_ANNOTATION] == reference);
    let Some(digest) = entry.and_then(|entry| entry["digest"].as_str()) else {
        bail!("{} holds no image {reference}", path.display());
    };
    let manifest = document(&blob_path(digest.trim_start_matches("sha256:")))?.clone();
    let parsed: Value = serde_json::from_slice(&manifest).with_context(context)?;
    let wanted: BTreeSet<_> = parsed["layers"]
        .as_array()
        .into_iter()
        .flatten()
        .chain([&parsed["config"]])
        .filter_map(|part| part["digest"].as_str())
        .collect();
    blobs.retain(|blob| wanted.contains(blob.digest.as_str()));
    if blobs.len() != wanted.len() {
        bail!("{} lacks layers of {reference}: remove it, it is built anew", path.display());
    }
    Ok(Contents { manifest, blobs })
}

/// Documents are a few kilobytes; layers are not read into memory.
const MAX_DOCUMENT: u64 = 1 << 20;

fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("images for {other} are not supported: there are amd64 and arm64"),
    }
}

fn to_bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).context("failed to encode an image document")
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

fn blob_path(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn add<W: Write>(archive: &mut Builder<W>, name: &str, content: &[u8]) -> Result<()> {
    add_from(archive, name, content.len() as u64, content)
}

fn add_from<W: Write>(archive: &mut Builder<W>, name: &str, size: u64, content: impl Read) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(size);
    archive
        .append_data(&mut header, name, content)
        .with_context(|| format!("failed to add {name} to the archive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run = Run { entrypoint: &["/a"], cmd: &["b"], user: "1234" };

    fn layer(dir: &Path, name: &str, content: &str) -> Layer {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        Layer { digest: digest(content.as_bytes()), size: content.len() as u64, path }
    }

    /// Two images on a shared layer: the archive is the same every time, holds the layer once, and can be read back.
    #[test]
    fn archives_are_deterministic_and_share_layers() {
        let dir = tempfile::tempdir().unwrap();
        let (base, top) = (layer(dir.path(), "base", "shared"), layer(dir.path(), "top", "own"));
        let archive = |name: &str| {
            let images = [
                Image::describe("r.io/x:1", RUN, vec![base.clone()]).unwrap(),
                Image::describe("r.io/x:2", RUN, vec![base.clone(), top.clone()]).unwrap(),
            ];
            let path = dir.path().join(name);
            write_archive(&images, &path).unwrap();
            path
        };
        let (a, b) = (archive("a.tar"), archive("b.tar"));
        assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());

        let names: Vec<_> = tar::Archive::new(File::open(&a).unwrap())
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names.iter().filter(|name| **name == blob_path(&base.digest)).count(), 1);

        let two = read_archive(&a, "r.io/x:2").unwrap();
        assert_eq!(two.blobs.len(), 3);
        let bytes = std::fs::read(&a).unwrap();
        for blob in &two.blobs {
            let content = &bytes[blob.offset as usize..(blob.offset + blob.size) as usize];
            assert_eq!(format!("sha256:{}", digest(content)), blob.digest);
        }
        let error = read_archive(&a, "r.io/x:3").unwrap_err().to_string();
        assert!(error.ends_with("holds no image r.io/x:3"), "{error}");
    }

    /// Equal content under two versions must be two images for a node, or a rolling update has nothing to do.
    #[test]
    fn versions_of_equal_content_differ() {
        let dir = tempfile::tempdir().unwrap();
        let image = |name: &str| Image::describe(name, RUN, vec![layer(dir.path(), "l", "x")]).unwrap();
        assert_ne!(digest(&image("r.io/x:1").config), digest(&image("r.io/x:2").config));
    }

    #[test]
    fn the_config_says_how_to_start() {
        let image = Image::describe("r.io/x:1", RUN, Vec::new()).unwrap();
        let config: Value = serde_json::from_slice(&image.config).unwrap();
        assert_eq!(config["config"]["Entrypoint"], json!(["/a"]));
        assert_eq!(config["config"]["Cmd"], json!(["b"]));
        assert_eq!(config["config"]["User"], json!("1234"));
        assert_eq!(config["rootfs"]["diff_ids"], json!([]));
    }
}
