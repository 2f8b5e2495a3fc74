//! Requests to loop devices and filesystems for which no crate has a safe function: the only unsafe code of the driver.
//! Structures and numbers are those of the kernel's `linux/loop.h` and `linux/fiemap.h`.

#![allow(unsafe_code, reason = "ioctl(2) takes structures that only the kernel's headers define")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::ioctl::{Getter, IntegerSetter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, Updater, ioctl};

const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_SET_CAPACITY: Opcode = 0x4C07;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const FS_IOC_FIEMAP: Opcode = 0xC020_660B;

/// `lo_flags`.
pub(super) const READ_ONLY: u32 = 1;
pub(super) const AUTOCLEAR: u32 = 4;
pub(super) const DIRECT_IO: u32 = 16;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct LoopInfo {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    pub(super) flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const EMPTY: LoopInfo = LoopInfo {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// What a loop device has; `ENXIO` if it has nothing.
pub(super) fn loop_status(device: impl AsFd) -> io::Result<LoopInfo> {
    // SAFETY: LOOP_GET_STATUS64 writes one `struct loop_info64`, which is what `LoopInfo` lays out, of plain numbers.
    Ok(unsafe { ioctl(device, Getter::<LOOP_GET_STATUS64, LoopInfo>::new()) }?)
}

/// Gives a file to a free loop device. `EBUSY` if somebody was quicker.
pub(super) fn loop_configure(
    device: impl AsFd,
    file: BorrowedFd<'_>,
    block_size: u32,
    flags: u32,
) -> io::Result<()> {
    let config = LoopConfig {
        fd: file.as_raw_fd().cast_unsigned(),
        block_size,
        info: LoopInfo { flags, ..EMPTY },
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, which is what `LoopConfig` lays out; the file is open for
    // the duration of the call, and the kernel takes its own reference.
    Ok(unsafe { ioctl(device, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config)) }?)
}

/// Takes the file away, now or when the last user has closed the device.
pub(super) fn loop_clear(device: impl AsFd) -> io::Result<()> {
    // SAFETY: LOOP_CLR_FD takes no argument.
    Ok(unsafe { ioctl(device, NoArg::<LOOP_CLR_FD>::new()) }?)
}

/// The device becomes as large as its file.
pub(super) fn loop_set_capacity(device: impl AsFd) -> io::Result<()> {
    // SAFETY: LOOP_SET_CAPACITY ignores its argument.
    Ok(unsafe { ioctl(device, IntegerSetter::<LOOP_SET_CAPACITY>::new_usize(0)) }?)
}

/// LOOP_CTL_GET_FREE answers with its return value.
struct GetFree;

// SAFETY: the request takes no argument and writes nothing; its answer is the return value.
unsafe impl Ioctl for GetFree {
    type Output = u32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        Ok(output.cast_unsigned())
    }
}

/// The number of a loop device that was free a moment ago.
pub(super) fn free_loop(control: impl AsFd) -> io::Result<u32> {
    // SAFETY: see `GetFree`.
    Ok(unsafe { ioctl(control, GetFree) }?)
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    pub(super) logical: u64,
    physical: u64,
    pub(super) length: u64,
    reserved64: [u64; 2],
    pub(super) flags: u32,
    reserved: [u32; 3],
}

/// Extents per call.
const BATCH: usize = 256;

/// `struct fiemap` with room for extents.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; BATCH],
}

const FIEMAP_FLAG_SYNC: u32 = 1;
const EXTENT_LAST: u32 = 1;
/// The extent is taken and was never written.
pub(super) const EXTENT_UNWRITTEN: u32 = 0x800;
/// Another file has the extent, too.
pub(super) const EXTENT_SHARED: u32 = 0x2000;

/// Calls `each` for every extent of a file, in order.
pub(super) fn extents(file: impl AsFd, mut each: impl FnMut(&Extent)) -> io::Result<()> {
    let mut start = 0;
    loop {
        let mut map = Box::new(Fiemap {
            start,
            length: u64::MAX - start,
            flags: FIEMAP_FLAG_SYNC,
            mapped: 0,
            count: BATCH as u32,
            reserved: 0,
            extents: [Extent::default(); BATCH],
        });
        // SAFETY: FS_IOC_FIEMAP reads a `struct fiemap` and writes at most `count` extents behind it, for which
        // `Fiemap` has room.
        unsafe { ioctl(file.as_fd(), Updater::<FS_IOC_FIEMAP, Fiemap>::new(&mut map)) }?;
        let found = &map.extents[..(map.mapped as usize).min(BATCH)];
        found.iter().for_each(&mut each);
        match found.last() {
            Some(last) if last.flags & EXTENT_LAST == 0 => start = last.logical + last.length,
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel reads and writes these by offset.
    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(size_of::<Extent>(), 56);
        assert_eq!(std::mem::offset_of!(Fiemap, extents), 32);
    }
}
