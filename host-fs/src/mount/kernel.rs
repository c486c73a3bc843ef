//! The two system calls no crate wraps.
#![allow(
    unsafe_code,
    reason = "neither rustix nor libc wraps mount_setattr(2) and statmount(2)"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::mount::MountAttrFlags;

/// statmount(2) came in Linux 6.8; since 5.1 a call has the same distance to its neighbours on every architecture.
const SYS_STATMOUNT: libc::c_long = libc::SYS_mount_setattr + 15;

/// The parts of a mount's description that [`statmount`] asks for.
pub(super) mod want {
    /// Device and flags of the file system.
    pub(crate) const SB_BASIC: u64 = 0x1;
    /// Ids, flags and propagation of the mount.
    pub(crate) const MNT_BASIC: u64 = 0x2;
    /// The nearest dominating peer group.
    pub(crate) const PROPAGATE_FROM: u64 = 0x4;
    /// The root inside the file system.
    pub(crate) const MNT_ROOT: u64 = 0x8;
    /// The mount point.
    pub(crate) const MNT_POINT: u64 = 0x10;
    /// The file system type.
    pub(crate) const FS_TYPE: u64 = 0x20;
    /// The id of the mount namespace (Linux 6.11).
    pub(crate) const MNT_NS_ID: u64 = 0x40;
    /// The options of the file system (Linux 6.11).
    pub(crate) const MNT_OPTS: u64 = 0x80;
    /// The part of the type after the dot (Linux 6.13).
    pub(crate) const FS_SUBTYPE: u64 = 0x100;
    /// The source (Linux 6.13).
    pub(crate) const SB_SOURCE: u64 = 0x200;
}

/// `struct mnt_id_req` in its first version.
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    wanted: u64,
}

/// Changes the flags of the mount behind a descriptor, all at once.
pub(super) fn mount_setattr(
    mount: BorrowedFd<'_>,
    set: MountAttrFlags,
    clear: MountAttrFlags,
) -> io::Result<()> {
    let change = libc::mount_attr {
        attr_set: set.bits().into(),
        attr_clr: clear.bits().into(),
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string, the structure has the given size, and the kernel only reads both.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Returns whether the kernel has [`mount_setattr`] and allows it (a seccomp filter may not).
pub(super) fn has_mount_setattr() -> bool {
    // SAFETY: a structure of size 0 is refused with EINVAL before any pointer is read.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            -1,
            c"".as_ptr(),
            0,
            std::ptr::null::<u8>(),
            0_usize,
        )
    };
    answer != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

/// Writes the description of the mount with this unique id (`STATX_MNT_ID_UNIQUE`) into the buffer.
///
/// Fails with `EOVERFLOW` when the buffer is too small.
pub(super) fn statmount(mount: u64, wanted: u64, buffer: &mut [u8]) -> io::Result<()> {
    let request = Request {
        size: 24,
        spare: 0,
        mount,
        wanted,
    };
    // SAFETY: the request has the size that it states, and the kernel writes no more than the length of the buffer.
    let answer = unsafe {
        libc::syscall(
            SYS_STATMOUNT,
            &raw const request,
            buffer.as_mut_ptr(),
            buffer.len(),
            0_usize,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
