//! The ioctls of loop devices and of block devices.
#![allow(unsafe_code, reason = "no crate wraps them")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::Attachment;

const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_CTL_ADD: libc::Ioctl = 0x4C80;
const LOOP_CTL_REMOVE: libc::Ioctl = 0x4C81;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const BLKROSET: libc::Ioctl = 0x125D;

/// Reads and writes bypass the page cache of the file system below.
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Requests a device with the next number that has never been used.
const NEXT_NUMBER: RawFd = -1;

/// The kernel's `struct loop_info64`.
#[repr(C)]
#[derive(Default)]
pub(super) struct LoopInfo {
    /// The device number of the file system that has the file.
    pub(super) device: u64,
    /// The inode of the file.
    pub(super) inode: u64,
    backing_device: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    names: [[u64; 8]; 2],
    key: [u64; 4],
    init: [u64; 2],
}

impl LoopInfo {
    pub(super) fn is_direct(&self) -> bool {
        self.flags & LO_FLAGS_DIRECT_IO != 0
    }
}

/// The kernel's `struct loop_config`.
#[repr(C)]
#[derive(Default)]
struct LoopConfig {
    file: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Attaches a file with everything that is to be set, in one step (Linux 5.8).
pub(super) fn attach(device: &File, file: &File, attachment: Attachment) -> io::Result<()> {
    const { assert!(size_of::<LoopConfig>() == 304, "as large as the kernel's") };
    let info = LoopInfo {
        flags: if attachment.direct { LO_FLAGS_DIRECT_IO } else { 0 },
        ..LoopInfo::default()
    };
    let config = LoopConfig {
        file: file.as_raw_fd().cast_unsigned(),
        block_size: attachment.block_size,
        info,
        ..LoopConfig::default()
    };
    // SAFETY: the kernel reads a `struct loop_config`, which has the layout of `LoopConfig`.
    answer(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }).map(drop)
}

/// Requests that the kernel detaches the file of a device.
pub(super) fn clear(device: &File) -> io::Result<()> {
    // SAFETY: the request has no argument.
    answer(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD, 0) }).map(drop)
}

/// Returns the number of a device that has no file.
pub(super) fn free_device(control: &File) -> io::Result<libc::c_int> {
    // SAFETY: the request has no argument.
    answer(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE, 0) })
}

/// Adds a device, and returns its number.
pub(super) fn add_device(control: &File) -> io::Result<libc::c_int> {
    // SAFETY: the argument is an integer.
    answer(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_ADD, NEXT_NUMBER) })
}

/// Removes a device, unless it has a file or is open.
pub(super) fn remove_device(control: &File, number: libc::c_int) -> io::Result<()> {
    // SAFETY: the argument is an integer.
    answer(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_REMOVE, number) }).map(drop)
}

/// Returns what a device has; an error with ENXIO if it has no file.
pub(super) fn status(device: &File) -> io::Result<LoopInfo> {
    const { assert!(size_of::<LoopInfo>() == 232, "as large as the kernel's") };
    let mut status = LoopInfo::default();
    // SAFETY: the kernel fills a `struct loop_info64`, which has the layout of `LoopInfo`, and every pattern
    // of bits is a valid value of it.
    answer(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut status) })?;
    Ok(status)
}

/// Makes a block device writable.
pub(super) fn set_writable(device: &File) -> io::Result<()> {
    let read_only: libc::c_int = 0;
    // SAFETY: the kernel reads an integer.
    answer(unsafe { libc::ioctl(device.as_raw_fd(), BLKROSET, &raw const read_only) }).map(drop)
}

fn answer(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
