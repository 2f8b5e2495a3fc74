//! Container images without a container engine or a registry: archives in the OCI layout, written from recipes.
//!
//! Which images there are is data in [`catalog`]. A recipe's files are found or built by [`source`], packed into
//! layers by [`layer`], described and archived by [`oci`], pushed by [`registry`]; [`debian`] makes the base layer
//! that the test images share. This file decides what is cached: an archive is named after everything that went
//! into it, so that a second call only has to look.

mod catalog;
mod debian;
mod layer;
mod oci;
mod recipe;
pub mod registry;
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::recipe::{Base, Recipe};
use self::source::Sources;
pub(crate) use self::source::compile_rust;
use crate::progress::Progress;
use crate::setup;
use crate::setup::stamp::Stamp;

/// An archive that `ctr images import` reads: one or several images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageTar {
    /// The full names under which a node will know the images.
    pub references: Vec<String>,
    /// Where the archive is.
    pub path: PathBuf,
}

/// Images that are needed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageGroup {
    /// What every cluster runs: the pause program and CoreDNS.
    Cluster,
    /// Our own programs.
    Own,
    /// What the walk in the README deploys.
    Demo,
    /// What upstream's suites deploy beside that (applications, network, scheduling, nodes, kubectl).
    Upstream,
}

impl ImageGroup {
    /// Every group.
    pub const ALL: [ImageGroup; 4] = [Self::Cluster, Self::Own, Self::Demo, Self::Upstream];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Own => "own",
            Self::Demo => "demo",
            Self::Upstream => "upstream",
        }
    }

    /// The references of the group's images.
    pub fn references(self) -> Vec<&'static str> {
        catalog::recipes().filter(|recipe| recipe.group == self).map(|recipe| recipe.reference).collect()
    }
}

/// Every image that can be built, by reference.
pub fn known_references() -> Vec<&'static str> {
    catalog::recipes().map(|recipe| recipe.reference).collect()
}

/// The archives that together hold the images `names`, built now unless they are there already.
///
/// An image without a base has an archive of its own; those on the shared base are in one, which holds the base
/// once. A name that no recipe has fails before anything is built.
pub fn ensure_images(names: &[&str], progress: &Progress) -> Result<Vec<ImageTar>> {
    let recipes = names.iter().map(|name| find(name)).collect::<Result<Vec<_>>>()?;
    let (shared, single): (Vec<_>, Vec<_>) = dedup(recipes).into_iter().partition(|r| r.base == Base::Debian);
    let mut sets: Vec<Vec<&Recipe>> = single.into_iter().map(|recipe| vec![recipe]).collect();
    if !shared.is_empty() {
        sets.push(shared);
    }
    sets.iter().map(|set| ensure_archive(set, progress)).collect()
}

/// The archives of a whole group.
pub fn ensure_group(group: ImageGroup, progress: &Progress) -> Result<Vec<ImageTar>> {
    ensure_images(&group.references(), progress)
}

/// Builds the layer that the test images share, unless it is there already. It takes longest of all and needs no
/// compiler, so `setup` starts it early.
pub fn ensure_base(progress: &Progress) -> Result<()> {
    debian::ensure(&images_dir()?, progress).map(drop)
}

fn images_dir() -> Result<PathBuf> {
    Ok(setup::cache_dir()?.join("images"))
}

/// The recipe of `name`; short names mean what they mean to containerd (`nginx:1.27` is in docker.io/library).
fn find(name: &str) -> Result<&'static Recipe> {
    let full = normalise(name);
    if let Some(recipe) = catalog::recipes().find(|recipe| recipe.reference == full) {
        return Ok(recipe);
    }
    let repository = full.rsplit_once(':').map_or(full.as_str(), |(repository, _)| repository);
    let similar: Vec<_> =
        known_references().into_iter().filter(|known| known.starts_with(repository)).collect();
    let hint = if similar.is_empty() { known_references() } else { similar };
    bail!(
        "no recipe builds the image {full} (add it to hack/cluster/src/image/catalog.rs); there are {}",
        hint.join(", ")
    )
}

fn normalise(name: &str) -> String {
    let tagged = name.rsplit_once('/').map_or(name, |(_, last)| last).contains(':');
    let with_tag = if tagged { name.to_owned() } else { format!("{name}:latest") };
    match with_tag.split_once('/') {
        None => format!("docker.io/library/{with_tag}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => with_tag,
        Some(_) => format!("docker.io/{with_tag}"),
    }
}

fn dedup(recipes: Vec<&'static Recipe>) -> Vec<&'static Recipe> {
    let mut seen = BTreeSet::new();
    recipes.into_iter().filter(|recipe| seen.insert(recipe.reference)).collect()
}

fn ensure_archive(recipes: &[&Recipe], progress: &Progress) -> Result<ImageTar> {
    let images = images_dir()?;
    let sources = Sources::resolve(recipes, &images, progress)?;
    let mut stamp = Stamp::default();
    stamp.add("format", oci::FORMAT.as_bytes());
    for recipe in recipes {
        stamp.add(recipe.reference, format!("{recipe:?}").as_bytes());
    }
    sources.stamp(&mut stamp);
    let label = if let [only] = recipes { short_name(only.reference) } else { "set".to_owned() };
    let path = images.join(format!("{label}-{}.tar", &stamp.finish()[..16]));
    let references = recipes.iter().map(|recipe| recipe.reference.to_owned()).collect();
    if !path.is_file() {
        let what = if let [only] = recipes {
            only.reference.to_owned()
        } else {
            format!("{} images", recipes.len())
        };
        progress.run(format!("write {what}"), || write_archive(recipes, &sources, &path))?;
        remove_older(&images, &label, &path);
    }
    Ok(ImageTar { references, path })
}

/// Writes beside the final path and renames: whoever finds the archive finds all of it.
fn write_archive(recipes: &[&Recipe], sources: &Sources, path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("failed to create {}", parent.display()))?;
    let scratch = setup::scratch::create(parent)?;
    let mut images = Vec::new();
    for recipe in recipes {
        let layers = layer::write_all(recipe, sources, scratch.path())
            .with_context(|| format!("failed to build the image {}", recipe.reference))?;
        images.push(oci::Image::new(recipe, layers)?);
    }
    let archive = scratch.path().join("archive.tar");
    oci::write_archive(&images, &archive).with_context(|| format!("failed to write {}", path.display()))?;
    fs::rename(&archive, path).with_context(|| format!("failed to move the archive to {}", path.display()))
}

/// `registry.k8s.io/e2e-test-images/agnhost:2.63.0` → `agnhost_2.63.0`.
fn short_name(reference: &str) -> String {
    reference.rsplit_once('/').map_or(reference, |(_, last)| last).replace(':', "_")
}

/// Removes earlier archives of the same image, but the newest of them: a cluster may just be importing it.
fn remove_older(images: &Path, label: &str, keep: &Path) {
    let Ok(entries) = fs::read_dir(images) else { return };
    let mut old: Vec<_> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            // The stamp is 16 characters: `nginx-…` must not claim the archives of `nginx-new-…`.
            name.strip_prefix(label)
                .is_some_and(|rest| rest.starts_with('-') && rest.len() == "-.tar".len() + 16)
                && entry.path() != keep
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    old.sort();
    // Several different sets are in use side by side (one per suite); single images have one current archive.
    let spared = if label == "set" { 3 } else { 1 };
    old.truncate(old.len().saturating_sub(spared));
    for (_, path) in old {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names mean what they mean in a pod spec.
    #[test]
    fn short_names_are_completed() {
        let full = ["nginx", "nginx:1.27", "org/app:1", "localhost:5000/a", "registry.k8s.io/pause:3.10.2"]
            .map(normalise);
        assert_eq!(
            full,
            [
                "docker.io/library/nginx:latest",
                "docker.io/library/nginx:1.27",
                "docker.io/org/app:1",
                "localhost:5000/a:latest",
                "registry.k8s.io/pause:3.10.2"
            ]
        );
    }

    /// A missing image fails by name, before anything is built, and says what there is instead.
    #[test]
    fn a_missing_image_is_named() {
        let error =
            ensure_images(&["registry.k8s.io/pause:3.10.2", "nginx:9.99"], &Progress::new()).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("docker.io/library/nginx:9.99") && text.contains("docker.io/library/nginx:1.27"),
            "{text}"
        );
    }

    #[test]
    fn older_archives_go_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let old = "0123456789abcdef";
        let names =
            [format!("nginx-new-{old}.tar"), format!("nginx-{old}.tar"), "nginx-1123456789abcdef.tar".into()];
        for (age, name) in names.iter().enumerate() {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age as u64 * 60);
            file.set_modified(time).unwrap();
        }
        remove_older(dir.path(), "nginx", &dir.path().join("nginx-2123456789abcdef.tar"));
        let left = |name: &str| dir.path().join(name).exists();
        assert_eq!(names.map(|name| left(&name)), [true, false, true]);
    }
}
