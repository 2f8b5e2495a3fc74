//! What the plugin must not forget: attachments, their addresses and ports. A log in tmpfs.
//!
//! Every change is written before the kernel is touched (`Intent`) and confirmed after (`Commit`), so at any moment
//! the log names everything that may exist. tmpfs, because a reboot takes the network namespaces too; therefore no
//! fsync. Readers take no lock: the file only grows, or is replaced as a whole.

mod allocate;
mod lock;
mod log;
mod record;
mod state;

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::spec::{CniError, Code};

pub use allocate::{allocate, check_ports, free};
pub use lock::AttachmentLock;
pub use log::LogError;
pub use record::{Event, Key, Phase, Record};
pub use state::State;

/// How long to wait for another process. Whoever holds the store's lock holds it for microseconds; whoever holds an
/// attachment's is an ADD or DEL of milliseconds, unless it was stopped.
const PATIENCE: Duration = Duration::from_secs(5);
/// A log is rewritten when it is longer than this and more than twice as long as needed.
const COMPACT_ABOVE: usize = 32 * 1024;
/// Room for the record that is being written, and for some that nobody foresees.
const ROOM: usize = 16 * 1024;
/// What DEL writes: the record once more, and its end.
const ROOM_PER_RECORD: usize = 1024;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system says no.
    #[error("failed to {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not ours to read.
    #[error("{path} cannot be used: {source}")]
    Log {
        /// The store.
        path: PathBuf,
        /// Why not.
        source: LogError,
    },
    /// Another process does not let go.
    #[error("another process holds {what} for more than {}s", PATIENCE.as_secs())]
    Busy {
        /// What it holds.
        what: String,
    },
    /// An event cannot be written as JSON: a path that is not UTF-8.
    #[error("failed to write an event: {0}")]
    Encode(#[from] serde_json::Error),
}

impl StoreError {
    fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }
}

impl From<StoreError> for CniError {
    fn from(error: StoreError) -> Self {
        let (code, remedy) = match &error {
            StoreError::Busy { .. } => {
                (Code::TryAgainLater, "a stopped process keeps its locks: look for one")
            }
            StoreError::Log { .. } => (
                Code::Io,
                "drain the node and remove the file; pods that were made before it must be made again",
            ),
            StoreError::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
                (Code::Io, "the file system of the data directory is full: make room on it")
            }
            StoreError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                (Code::NotPermitted, "the plugin must run as root")
            }
            StoreError::Io { .. } | StoreError::Encode(_) => {
                (Code::Io, "see `dataDir` of the network configuration")
            }
        };
        Self::new(code, error.to_string()).details(remedy)
    }
}

/// The store of a node.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// The store, locked: nobody else writes.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a Store,
    /// Holds the lock until dropped.
    _lock: File,
    file: File,
    /// Bytes of it that are whole.
    length: usize,
    state: State,
}

impl Store {
    /// The store in this directory, which is made when something is written.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// What the log says now, without waiting for anybody. A store that was never written is empty.
    pub fn read(&self) -> Result<State, StoreError> {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(StoreError::io("read", &path, error)),
        };
        let (events, _) = log::events(&bytes).map_err(|source| StoreError::Log { path, source })?;
        Ok(State::replay(events))
    }

    /// Waits for the store's lock and reads the log.
    pub fn lock(&self) -> Result<Locked<'_>, StoreError> {
        let lock = self.open("lock")?;
        let taken = lock::wait_for(PATIENCE, || match lock.try_lock() {
            Ok(()) => Ok(Some(())),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(StoreError::io("lock", &self.dir, error)),
        })?;
        if taken.is_none() {
            return Err(StoreError::Busy { what: "the store's lock".to_owned() });
        }
        let (file, path) = (self.open("store")?, self.path());
        let bytes = fs::read(&path).map_err(|error| StoreError::io("read", &path, error))?;
        let (events, length) = log::events(&bytes).map_err(|source| StoreError::Log { path, source })?;
        Ok(Locked { store: self, _lock: lock, file, length, state: State::replay(events) })
    }

    /// Waits until nobody else is at work on the attachment.
    pub fn lock_attachment(&self, key: &Key) -> Result<AttachmentLock, StoreError> {
        let busy = || StoreError::Busy { what: format!("the attachment {key}") };
        lock::wait_for(PATIENCE, || self.try_lock_attachment(key))?.ok_or_else(busy)
    }

    /// The attachment's lock, unless somebody is at work on it.
    pub fn try_lock_attachment(&self, key: &Key) -> Result<Option<AttachmentLock>, StoreError> {
        lock::try_lock(self.open("attachments")?, key)
    }

    /// Removes the files.
    pub fn remove(&self) -> Result<(), StoreError> {
        let _locked = self.lock()?;
        for name in ["store", "store.new", "attachments", "lock"] {
            match fs::remove_file(self.dir.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", &self.dir.join(name), error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn open(&self, name: &str) -> Result<File, StoreError> {
        let path = self.dir.join(name);
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&self.dir).map_err(|error| StoreError::io("create", &self.dir, error))?;
                open()
            }
            other => other,
        };
        file.map_err(|error| StoreError::io("open", &path, error))
    }
}

impl Locked<'_> {
    /// What the log says.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Writes one event. When this returns an error, nothing was written.
    pub fn append(&mut self, event: Event) -> Result<(), StoreError> {
        let mut bytes = if self.length == 0 { log::MAGIC.to_vec() } else { Vec::new() };
        bytes.extend(log::frame(&event)?);
        // A torn end is what a killed writer left; what follows must not be hidden behind it.
        let torn = |error| StoreError::io("cut the torn end off", &self.store.path(), error);
        if self.file.metadata().map_err(torn)?.len() != self.length as u64 {
            self.file.set_len(self.length as u64).map_err(torn)?;
        }
        if let Err(error) = self.file.write_all_at(&bytes, self.length as u64) {
            // Without room a part may have been written. It would be taken for torn anyhow.
            let _ = self.file.set_len(self.length as u64);
            return Err(StoreError::io("write to", &self.store.path(), error));
        }
        self.length += bytes.len();
        self.state.apply(event);
        Ok(())
    }

    /// Makes sure that the attachments that exist can be removed: an ADD that takes the last room of the file system
    /// would leave none for the records of DEL. The room is kept behind the end of the file, where only its own
    /// growth can use it.
    pub fn reserve_room(&mut self) -> Result<(), StoreError> {
        let wanted = self.length + ROOM + ROOM_PER_RECORD * self.state.records().count();
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, wanted as i64) {
            // A file system that cannot keep room is no tmpfs, and rarely full.
            Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(error) => Err(StoreError::io("keep room in", &self.store.path(), error.into())),
        }
    }

    /// Rewrites the log if most of it is history. Failing to is not an error: the log is just longer than needed.
    pub fn compact_if_worth_it(&mut self) -> Result<(), StoreError> {
        if self.length < COMPACT_ABOVE {
            return Ok(());
        }
        let mut bytes = log::MAGIC.to_vec();
        for event in self.state.to_events() {
            bytes.extend(log::frame(&event)?);
        }
        if bytes.len() * 2 > self.length {
            return Ok(());
        }
        let (new, path) = (self.store.dir.join("store.new"), self.store.path());
        fs::write(&new, &bytes).map_err(|error| StoreError::io("write", &new, error))?;
        let file = File::options().read(true).write(true).open(&new);
        self.file = file.map_err(|error| StoreError::io("open", &new, error))?;
        fs::rename(&new, &path).map_err(|error| StoreError::io("replace", &path, error))?;
        self.length = bytes.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
