//! Mounts that the agents cannot see, because they are in another mount namespace.

use host_fs::mount::testing::unmount;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

/// A bind mount in a namespace of its own, which receives the mounts of this one but propagates none back.
pub(super) struct OtherNamespace {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl OtherNamespace {
    #[allow(
        unsafe_code,
        reason = "rustix marks all of unshare(2) as unsafe for the sake of other flags"
    )]
    pub(super) fn bind(source: PathBuf, target: &Path) -> Self {
        let (ready, until_ready) = channel();
        let (stop, until_stop) = channel::<()>();
        let target = target.to_owned();
        let thread = thread::spawn(move || {
            // SAFETY: neither flag affects memory or file descriptors.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.unwrap();
            let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            mount_change("/", downstream).unwrap();
            mount_bind(source, &target).unwrap();
            ready.send(()).unwrap();
            assert!(until_stop.recv().is_err(), "nothing is ever sent");
            unmount(&target);
        });
        until_ready.recv().unwrap();
        Self { stop, thread }
    }

    /// Unmounts it and ends the namespace.
    pub(super) fn end(self) {
        drop(self.stop);
        self.thread.join().unwrap();
    }
}
