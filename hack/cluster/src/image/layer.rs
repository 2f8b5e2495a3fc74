//! A layer: an uncompressed tar whose bytes depend on its content only. Names are sorted, times are zero, everything
//! belongs to root, so that the same recipe gives the same digest on every machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::recipe::{Base, Entry, Recipe};
use super::source::{Content, Sources};

/// A layer on disk. Uncompressed, so its digest is also its diff id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Hex, without the algorithm.
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) path: PathBuf,
}

/// Writes the layers of `recipe` into `dir`, from the bottom up. Layers that another recipe has already written
/// there are taken from there.
pub(crate) fn write_all(recipe: &Recipe, sources: &Sources, dir: &Path) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    if recipe.base == Base::Debian {
        let base = sources.base()?;
        layers.push(Layer { digest: base.digest.clone(), size: base.size, path: base.path.clone() });
    }
    for entries in recipe.layers {
        let name = hex::encode(Sha256::digest(format!("{:?} {entries:?}", recipe.base)));
        let (path, note) = (dir.join(format!("{name}.layer")), dir.join(format!("{name}.digest")));
        if let Ok(digest) = std::fs::read_to_string(&note) {
            let size =
                std::fs::metadata(&path).with_context(|| format!("failed to read {}", path.display()))?.len();
            layers.push(Layer { digest, size, path });
            continue;
        }
        let layer = write(recipe.base, entries, sources, &path)?;
        std::fs::write(&note, &layer.digest)
            .with_context(|| format!("failed to write {}", note.display()))?;
        layers.push(layer);
    }
    Ok(layers)
}

fn write(base: Base, entries: &[Entry], sources: &Sources, path: &Path) -> Result<Layer> {
    let mut nodes = BTreeMap::new();
    for entry in entries {
        match sources.content(entry.source)? {
            Content::Links(links) => {
                nodes.extend(links.into_iter().map(|(path, target)| (path, (0o777, Content::Link(target)))));
            }
            content => {
                nodes.insert(entry.path.to_owned(), (entry.mode, content));
            }
        }
    }
    if base == Base::Scratch {
        // Over a base, a directory entry would change the mode of one that exists there (`/tmp`, `/root`).
        add_parents(&mut nodes);
    }
    let mut writer = LayerWriter::create(path)?;
    for (name, (mode, content)) in &nodes {
        writer.add(name, *mode, content)?;
    }
    writer.finish()
}

fn add_parents(nodes: &mut BTreeMap<String, (u32, Content)>) {
    let names: Vec<_> = nodes.keys().cloned().collect();
    for name in names {
        for parent in
            Path::new(&name).ancestors().skip(1).filter_map(Path::to_str).filter(|dir| !dir.is_empty())
        {
            nodes.entry(parent.to_owned()).or_insert((0o755, Content::Directory));
        }
    }
}

/// Writes a tar to a file and digests it on the way.
pub(crate) struct LayerWriter {
    builder: Builder<Digesting<BufWriter<File>>>,
    path: PathBuf,
}

impl LayerWriter {
    pub(crate) fn create(path: &Path) -> Result<LayerWriter> {
        let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
        let builder = Builder::new(Digesting { inner: BufWriter::new(file), hash: Sha256::new(), size: 0 });
        Ok(LayerWriter { builder, path: path.to_owned() })
    }

    /// Adds one node that belongs to root.
    pub(crate) fn add(&mut self, name: &str, mode: u32, content: &Content) -> Result<()> {
        let owner = Owner { uid: 0, gid: 0, mode };
        match content {
            Content::Directory => self.special(EntryType::Directory, name, owner, None),
            Content::Link(target) => self.special(EntryType::Symlink, name, owner, Some(Path::new(target))),
            Content::Bytes(bytes) => self.file(name, owner, bytes.len() as u64, bytes.as_slice()),
            Content::File(source) => {
                let context = || format!("failed to read {} for /{name}", source.display());
                let file = File::open(source).with_context(context)?;
                let size = file.metadata().with_context(context)?.len();
                self.file(name, owner, size, file)
            }
            Content::Links(_) => Ok(()), // expanded by the caller
        }
    }

    /// Adds a regular file.
    pub(crate) fn file(&mut self, name: &str, owner: Owner, size: u64, content: impl Read) -> Result<()> {
        let mut header = header(EntryType::Regular, owner, size);
        self.builder
            .append_data(&mut header, name, content)
            .with_context(|| format!("failed to write /{name} to {}", self.path.display()))
    }

    /// Adds a node without content: a directory, or a link to `target`.
    pub(crate) fn special(
        &mut self,
        kind: EntryType,
        name: &str,
        owner: Owner,
        target: Option<&Path>,
    ) -> Result<()> {
        let mut header = header(kind, owner, 0);
        let written = match target {
            Some(target) => self.builder.append_link(&mut header, name, target),
            None => self.builder.append_data(&mut header, name, std::io::empty()),
        };
        written.with_context(|| format!("failed to write /{name} to {}", self.path.display()))
    }

    pub(crate) fn finish(self) -> Result<Layer> {
        let context = || format!("failed to write {}", self.path.display());
        let mut digesting = self.builder.into_inner().with_context(context)?;
        digesting.inner.flush().with_context(context)?;
        Ok(Layer {
            digest: hex::encode(digesting.hash.finalize()),
            size: digesting.size,
            path: self.path.clone(),
        })
    }
}

/// Whose a node is, and what may be done with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

fn header(kind: EntryType, owner: Owner, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(owner.mode);
    header.set_uid(u64::from(owner.uid));
    header.set_gid(u64::from(owner.gid));
    header.set_mtime(0);
    header.set_size(size);
    header
}

struct Digesting<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(dir: &Path, nodes: &[(&str, u32, &str)]) -> Layer {
        let mut map: BTreeMap<String, (u32, Content)> = nodes
            .iter()
            .map(|(name, mode, text)| ((*name).to_owned(), (*mode, Content::Bytes(text.as_bytes().to_vec()))))
            .collect();
        add_parents(&mut map);
        let mut writer = LayerWriter::create(&dir.join("layer.tar")).unwrap();
        for (name, (mode, content)) in &map {
            writer.add(name, *mode, content).unwrap();
        }
        writer.finish().unwrap()
    }

    /// The digest is that of the bytes on disk, and depends on names, modes and contents, not on order or time.
    #[test]
    fn digests_follow_content() {
        let dir = tempfile::tempdir().unwrap();
        let nodes = [("usr/bin/a", 0o755, "one"), ("etc/b", 0o644, "two")];
        let first = layer(dir.path(), &nodes);
        assert_eq!(first.digest, hex::encode(Sha256::digest(std::fs::read(&first.path).unwrap())));
        assert_eq!(first.size, std::fs::metadata(&first.path).unwrap().len());
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_eq!(first, layer(dir.path(), &[nodes[1], nodes[0]]));
        assert_ne!(first.digest, layer(dir.path(), &[nodes[0], ("etc/b", 0o600, "two")]).digest);
        assert_ne!(first.digest, layer(dir.path(), &[nodes[0], ("etc/b", 0o644, "2")]).digest);
    }

    /// Parents come before their children, once each, and belong to root.
    #[test]
    fn layers_are_complete_trees() {
        let dir = tempfile::tempdir().unwrap();
        let layer = layer(dir.path(), &[("usr/bin/a", 0o4755, "x"), ("usr/bin/b", 0o755, "y")]);
        let mut archive = tar::Archive::new(File::open(layer.path).unwrap());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 0));
                (entry.path().unwrap().display().to_string(), header.mode().unwrap())
            })
            .collect();
        let expected = [("usr", 0o755), ("usr/bin", 0o755), ("usr/bin/a", 0o4755), ("usr/bin/b", 0o755)];
        assert_eq!(entries, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }
}
