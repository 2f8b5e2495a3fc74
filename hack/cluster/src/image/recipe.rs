//! What an image consists of, as plain data.

use super::ImageGroup;

/// How one image is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    /// The full name with its tag.
    pub(crate) reference: &'static str,
    pub(crate) group: ImageGroup,
    pub(crate) base: Base,
    /// One layer per slice, from the bottom up. Images that share a slice share the layer.
    pub(crate) layers: &'static [&'static [Entry]],
    pub(crate) run: Run,
}

/// What lies below a recipe's own layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing.
    Scratch,
    /// The shared Debian layer of [`super::debian`].
    Debian,
}

/// How a container of the image is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) entrypoint: &'static [&'static str],
    pub(crate) cmd: &'static [&'static str],
    pub(crate) user: &'static str,
}

/// One file of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Path in the image, without a leading slash.
    pub(crate) path: &'static str,
    pub(crate) mode: u32,
    pub(crate) source: Source,
}

/// Where an entry's content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Link(&'static str),
    /// This text.
    Text(&'static str),
    /// A binary that setup builds.
    Tool(&'static str),
    /// A file that a pinned Go module ships: module, path.
    Module(&'static str, &'static str),
    /// A C program of `hack/cluster/images`, linked statically.
    Program(&'static str),
    /// A binary of this workspace, linked statically: package, binary.
    Cargo(&'static str, &'static str),
    /// A file of the Debian base.
    Debian(&'static str),
    /// A file of the Debian base with lines added at its end.
    DebianPlus(&'static str, &'static str),
    /// A directory with one symbolic link per applet of the busybox at this path in the image.
    BusyboxApplets(&'static str),
}

impl Entry {
    /// Who may look at an image's files does not matter here: programs are executable, the rest is readable.
    pub(crate) const fn new(path: &'static str, source: Source) -> Entry {
        let mode = match source {
            Source::Text(_) | Source::Module(..) | Source::DebianPlus(..) => 0o644,
            _ => 0o755,
        };
        Entry { path, mode, source }
    }

    pub(crate) const fn mode(self, mode: u32) -> Entry {
        Entry { mode, ..self }
    }
}
