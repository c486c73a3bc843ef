//! Real mounts for unit tests, each test in a mount namespace of its own.
#![allow(
    clippy::new_without_default,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by a panic"
)]

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::unmount::{Patience, unmount_top};
use super::{Device, MountTable};

/// Runs a test body with an empty directory, in a thread whose mounts no other process sees.
///
/// The namespace ends with the thread, and its mounts with it, whether the body panics or not.
pub fn in_own_namespace<R: Send + 'static>(body: impl FnOnce(&Path) -> R + Send + 'static) -> R {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().canonicalize().unwrap();
    let thread = std::thread::Builder::new()
        .name(std::thread::current().name().unwrap_or("test").to_owned())
        .spawn(move || {
            enter_own_namespace();
            body(&path)
        })
        .unwrap();
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[allow(
    unsafe_code,
    reason = "the descriptor table stays shared, which is what makes unshare unsafe"
)]
fn enter_own_namespace() {
    // SAFETY: no CLONE_FILES, so every descriptor stays valid in every thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("these tests need root");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}

/// Mounts an empty file system at a path, making the directory.
pub fn tmpfs(point: &Path) {
    tmpfs_named("tmpfs", point);
}

/// Mounts an empty file system under a source name of choice.
pub fn tmpfs_named(source: &str, point: &Path) {
    create_mount_point(point);
    mount(source, point, "tmpfs", MountFlags::empty(), None).unwrap();
}

/// Binds a directory to another path, making that.
pub fn bind(from: &Path, to: &Path) {
    create_mount_point(to);
    mount_bind(from, to).unwrap();
}

/// Makes a path shared, as systemd does with the root of a host.
pub fn share(point: &Path) {
    mount_change(point, MountPropagationFlags::SHARED).unwrap();
}

fn create_mount_point(path: &Path) {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            panic!("cannot make {}: {error}", path.display())
        }
        _ => {}
    }
}

/// Another mount namespace that shares what is shared in this one, as a container's does with the host's.
pub struct PeerNamespace(Child);

impl PeerNamespace {
    /// Starts a process that lives in one.
    pub fn new() -> PeerNamespace {
        PeerNamespace::with("unchanged")
    }

    /// Starts a process that lives in one with this propagation, as unshare(1) spells it.
    pub fn with(propagation: &str) -> PeerNamespace {
        let script = "echo ready; exec cat";
        let mut peer = Command::new("unshare")
            .args(["--mount", "--propagation", propagation, "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(peer.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        PeerNamespace(peer)
    }

    /// Returns the mount table as it looks from there.
    pub fn table(&self) -> MountTable {
        MountTable::read_of(&self.0.id().to_string()).unwrap()
    }
}

impl Drop for PeerNamespace {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// A loop device with an ext4 file system, which the kernel frees after its last use, also after a crash.
pub struct LoopDevice {
    /// Its device node.
    pub path: PathBuf,
    /// Its number.
    pub device: Device,
    _open: File,
}

impl LoopDevice {
    /// Makes one from a sparse file.
    ///
    /// The file lies outside of the test's own mounts. Below one of them it would keep that mount alive and with it,
    /// the mounts on it, when the namespace ends: the kernel would never free the device.
    pub fn new() -> LoopDevice {
        let file = tempfile::Builder::new()
            .prefix("flocker-csi-test-")
            .tempfile()
            .unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", file.path().to_str().unwrap()]);
        let path = PathBuf::from(run("losetup", &["--find", "--show", file.path().to_str().unwrap()]).trim());
        let open = File::open(&path).unwrap();
        // The device stays while it is open or mounted: this only marks it to be freed afterwards.
        run("losetup", &["--detach", path.to_str().unwrap()]);
        let device = Device::from_raw(rustix::fs::fstat(&open).unwrap().st_rdev);
        LoopDevice {
            path,
            device,
            _open: open,
        }
    }

    /// Mounts it the way Flocker's agent does.
    pub fn mount(&self, point: &Path) {
        create_mount_point(point);
        mount(&self.path, point, "ext4", MountFlags::empty(), None).unwrap();
    }
}

/// Unmounts the visible mount of a path, which nothing uses any more.
///
/// A program that another test starts at the same time has the descriptors of this process until it is executed, and with
/// them for a moment one on the mount that this test has just closed: so a busy mount is tried again.
pub fn unmount(point: impl AsRef<Path>) {
    let (point, patience) = (
        point.as_ref(),
        Patience {
            retries: 8,
            ..Patience::default()
        },
    );
    unmount_top(point, patience)
        .unwrap_or_else(|error| panic!("cannot unmount {}: {error}", point.display()));
}

/// Runs a program in this thread's namespace and returns what it wrote.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
