//! Frozen file systems, as during a backup of the storage below them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;

use crate::node::Fixture;
use crate::support::eventually;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

// linux/fs.h; no dependency defines them.
const FIFREEZE: libc::Ioctl = 0xC004_5877_u32 as libc::Ioctl;
const FITHAW: libc::Ioctl = 0xC004_5878_u32 as libc::Ioctl;

/// A file system that is frozen until this is dropped.
struct Frozen(File);

impl Frozen {
    fn freeze(path: &Path) -> Self {
        let root = File::open(path).unwrap();
        change(&root, FIFREEZE).unwrap();
        Self(root)
    }
}

impl Drop for Frozen {
    /// A file system that stays frozen could never be unmounted.
    fn drop(&mut self) {
        change(&self.0, FITHAW).ok();
    }
}

#[allow(unsafe_code, reason = "no dependency wraps these requests")]
fn change(root: &File, request: libc::Ioctl) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `root` is borrowed, and these requests take nothing.
    let result = unsafe { libc::ioctl(root.as_raw_fd(), request, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Begins to write a file, and returns when the write is blocked.
async fn begin_to_write(file: PathBuf) -> thread::JoinHandle<()> {
    let (send_id, id) = std::sync::mpsc::channel();
    let writer = thread::spawn(move || {
        // The thread id, by which the kernel reports the thread's state.
        send_id.send(rustix::thread::gettid().as_raw_nonzero()).unwrap();
        fs::write(file, "late").unwrap();
    });
    let id = id.recv().unwrap();
    eventually("the writer waits", async || {
        let stat = fs::read_to_string(format!("/proc/self/task/{id}/stat")).unwrap();
        // Uninterruptible, because only a file system blocks a thread in this way.
        stat.rsplit_once(") ").unwrap().1.starts_with('D').then_some(())
    })
    .await;
    writer
}

#[test]
fn a_frozen_file_system_keeps_no_call_waiting_and_goes_on_when_it_is_thawed() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        fs::write(usage.target.join("file"), "precious").unwrap();
        let frozen = Frozen::freeze(&fixture.flocker.mount_of(1, usage.dataset()));
        let writer = begin_to_write(usage.target.join("late")).await;

        let stats = csi.stats(&usage).await.unwrap();
        assert_eq!(stats.usage.len(), 2, "its usage is known");
        assert!(!stats.volume_condition.unwrap().abnormal);
        for call in [
            &usage,
            &usage.at_target("again"),
            &usage.at_target("reading").read_only(),
        ] {
            csi.publish(call).await.unwrap();
            assert_eq!(fs::read_to_string(call.target.join("file")).unwrap(), "precious");
        }
        csi.unpublish(&usage.at_target("again")).await.unwrap();
        csi.unpublish(&usage.at_target("reading")).await.unwrap();
        csi.stage(&usage).await.unwrap();
        drop(frozen);
        writer.join().unwrap();
        assert_eq!(fs::read_to_string(usage.target.join("late")).unwrap(), "late");
        fixture.clean_up(&usage).await;
    });
}

#[test]
fn a_frozen_file_system_can_be_staged_and_unstaged() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        fs::write(usage.target.join("file"), "precious").unwrap();
        let frozen = Frozen::freeze(&fixture.flocker.mount_of(1, usage.dataset()));
        fixture.clean_up(&usage).await;
        csi.stage(&usage).await.unwrap();
        only_mount_at(&usage.alias());
        csi.publish(&usage).await.unwrap();
        assert_eq!(fs::read_to_string(usage.target.join("file")).unwrap(), "precious");
        fixture.clean_up(&usage).await;
        drop(frozen);
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();
        fs::write(usage.target.join("file"), "thawed").unwrap();
        fixture.clean_up(&usage).await;
    });
}
