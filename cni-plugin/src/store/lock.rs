//! One lock per attachment, held for the whole of a verb: who holds it is at work on the attachment.
//!
//! The kernel lets go of it when the holder dies, however it dies, so an intent without a lock is an intent that
//! nobody will finish. Process ids would not do: the agent lives in another pid namespace, and numbers are reused.
//! All locks are byte ranges of one file, so that no file per attachment is left behind.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::StoreError;
use super::record::Key;
use crate::names;

/// First pause between two tries; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// Held until dropped.
#[derive(Debug)]
pub struct AttachmentLock {
    _file: File,
}

/// Takes the lock of an attachment if nobody holds it.
pub(super) fn try_lock(file: File, key: &Key) -> Result<Option<AttachmentLock>, StoreError> {
    let range = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset(key),
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&range)) {
        Ok(_) => Ok(Some(AttachmentLock { _file: file })),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
        Err(error) => {
            Err(StoreError::io("lock an attachment in", std::path::Path::new("the store"), error.into()))
        }
    }
}

/// Where its byte is. Two attachments of one byte wait for each other, which harms nobody.
fn offset(key: &Key) -> i64 {
    // Offsets are signed, and the byte after it must have one too.
    (names::digest(key) >> 2) as i64
}

/// Calls `attempt` until it yields something, for at most `patience`.
pub(super) fn wait_for<T>(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>, StoreError>,
) -> Result<Option<T>, StoreError> {
    let deadline = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(got) = attempt()? {
            return Ok(Some(got));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
