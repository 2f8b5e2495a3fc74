//! Loop devices. They are found by the device and inode of their file, never by a name: names are reused, and a file
//! may have several.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::ioctl;
use crate::model::size::SECTOR;
use crate::plan::LoopDevice;

/// Major number of loop devices (Documentation/admin-guide/devices.txt).
const LOOP_MAJOR: u32 = 7;
/// How often another process may be quicker at taking a free device.
const ATTEMPTS: u32 = 100;
/// How long the last user of a device may take to let go of it: it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The devices that this process holds open, by image.
#[derive(Debug, Default)]
pub(super) struct Loops {
    held: Mutex<BTreeMap<PathBuf, File>>,
}

impl Loops {
    pub(super) fn attach(
        &self,
        image: &Path,
        autoclear: bool,
        read_only: bool,
        discard: bool,
    ) -> io::Result<()> {
        let existing = of(image)?;
        let device = match existing.as_slice() {
            [] => attach_new(image, autoclear, read_only)?,
            [one] if one.autoclear == autoclear && one.read_only == read_only => open(one.number, read_only)?,
            several => {
                let names: Vec<_> =
                    several.iter().map(|device| device.path().display().to_string()).collect();
                let text = format!("{} has it already, attached in another way", names.join(", "));
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
        };
        let now = of(image)?;
        let [only] = now.as_slice() else {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "it got a second loop device meanwhile"));
        };
        // Without it, written data is in the page cache twice and a power cut loses what fsync promised.
        if !only.direct_io {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{}: the pool's filesystem allows no direct I/O", only.path().display()),
            ));
        }
        if !discard {
            std::fs::write(format!("/sys/block/loop{}/queue/discard_max_bytes", only.number), "0")?;
        }
        self.lock().insert(image.to_owned(), device);
        Ok(())
    }

    pub(super) fn release(&self, image: &Path) {
        self.lock().remove(image);
    }

    /// Frees the devices of an image, after those that somebody put on top of them: the kubelet has one of its own on
    /// every block device that it publishes, and a killed one does not come back for it.
    pub(super) fn detach(&self, image: &Path) -> io::Result<()> {
        self.release(image);
        for device in of(image)? {
            let node = rustix::fs::makedev(LOOP_MAJOR, device.number);
            for above in bound()? {
                if status(above)?.is_some_and(|info| info.rdevice == node && above != device.number) {
                    clear(above)?;
                }
            }
            clear(device.number)?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, File>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn await_detached(image: &Path) -> io::Result<()> {
    let start = Instant::now();
    loop {
        let devices = of(image)?;
        let Some(device) = devices.first() else { return Ok(()) };
        if start.elapsed() > PATIENCE {
            let text = format!("somebody still has {} open", device.path().display());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn set_capacity(image: &Path) -> io::Result<()> {
    of(image)?.iter().try_for_each(|device| ioctl::loop_set_capacity(open(device.number, device.read_only)?))
}

/// The devices that have this file.
pub(super) fn of(image: &Path) -> io::Result<Vec<LoopDevice>> {
    Ok(of_each(&[image.to_owned()])?.pop().unwrap_or_default())
}

/// For each file the devices that have it, in one look at all devices.
pub(super) fn of_each(images: &[PathBuf]) -> io::Result<Vec<Vec<LoopDevice>>> {
    let mut by_identity: BTreeMap<(u64, u64), Vec<LoopDevice>> = BTreeMap::new();
    for number in bound()? {
        let Some(info) = status(number)? else { continue };
        by_identity.entry((info.device, info.inode)).or_default().push(LoopDevice {
            number,
            autoclear: info.flags & ioctl::AUTOCLEAR != 0,
            direct_io: info.flags & ioctl::DIRECT_IO != 0,
            read_only: info.flags & ioctl::READ_ONLY != 0,
        });
    }
    let identity = |image: &PathBuf| match rustix::fs::stat(image) {
        Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(io::Error::from(error)),
    };
    let devices = |image| {
        let mut devices = identity(image)?.and_then(|key| by_identity.get(&key).cloned()).unwrap_or_default();
        devices.sort_by_key(|device| device.number);
        Ok(devices)
    };
    images.iter().map(devices).collect()
}

fn attach_new(image: &Path, autoclear: bool, read_only: bool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(!read_only).open(image)?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let flags = ioctl::DIRECT_IO
        | if autoclear { ioctl::AUTOCLEAR } else { 0 }
        | if read_only { ioctl::READ_ONLY } else { 0 };
    for _ in 0..ATTEMPTS {
        let device = match open(ioctl::free_loop(&control)?, read_only) {
            // The node appears a moment after the device.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            other => other?,
        };
        match ioctl::loop_configure(&device, file.as_fd(), SECTOR, flags) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            other => return other.map(|()| device),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "other processes take every free loop device"))
}

/// The numbers of all devices that have a file.
fn bound() -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop")).and_then(|n| n.parse().ok());
        if let Some(number) = number
            && entry.path().join("loop").exists()
        {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

fn open(number: u32, read_only: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(!read_only).open(format!("/dev/loop{number}"))
}

/// What a device has; none if it lost it a moment ago.
fn status(number: u32) -> io::Result<Option<ioctl::LoopInfo>> {
    let device = match open(number, true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // ENXIO: it is being torn down.
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => return Ok(None),
        other => other?,
    };
    match ioctl::loop_status(device) {
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => Ok(None),
        other => other.map(Some),
    }
}

fn clear(number: u32) -> io::Result<()> {
    match ioctl::loop_clear(open(number, true)?) {
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => Ok(()),
        other => other,
    }
}
