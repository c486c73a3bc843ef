//! A mount namespace of a thread's own. The unit tests that mount use it too.

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

/// Moves the calling thread, and the threads it creates from now on, to a namespace whose mounts are shared among
/// them as on most hosts, and with no other process.
#[allow(
    unsafe_code,
    reason = "rustix marks all of unshare(2) as unsafe for the sake of other flags"
)]
pub(crate) fn enter_own_namespace() {
    // SAFETY: neither flag affects memory or file descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.unwrap();
    for propagation in [MountPropagationFlags::PRIVATE, MountPropagationFlags::SHARED] {
        mount_change("/", propagation | MountPropagationFlags::REC).unwrap();
    }
}
