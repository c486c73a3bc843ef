//! One mount namespace per test, so that tests neither see nor affect the mounts of each other or of the machine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::namespace::enter_own_namespace;

/// Runs a test with a directory of its own, in a mount namespace of its own whose mounts are shared as on most hosts.
/// All loop devices that the test leaves attached are detached, also if it fails.
pub(crate) fn isolated<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F + Send + 'static) {
    let outcome = thread::spawn(move || {
        enter_own_namespace();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            // Its threads are created here, so they are in the new namespace too.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(test(path.clone()));
        }));
        clean_up(&path);
        outcome
    })
    .join();
    if let Err(panic) = outcome.and_then(|outcome| outcome) {
        resume_unwind(panic);
    }
}

fn clean_up(directory: &Path) {
    for mount_point in mount_points()
        .into_iter()
        .rev()
        .filter(|path| path.starts_with(directory))
    {
        unmount(&mount_point, UnmountFlags::DETACH).unwrap();
    }
    for (device, _) in loop_devices(directory) {
        assert!(
            Command::new("losetup")
                .arg("-d")
                .arg(device)
                .status()
                .unwrap()
                .success()
        );
    }
}

/// Returns all mount points, oldest first.
pub(crate) fn mount_points() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table
        .lines()
        .map(|line| line.split(' ').nth(4).unwrap().into())
        .collect()
}

/// Returns the loop devices whose backing file is below a directory, with the file.
pub(crate) fn loop_devices(directory: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut devices = Vec::new();
    for entry in fs::read_dir("/sys/block").unwrap() {
        let entry = entry.unwrap();
        if let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file")) {
            let file = PathBuf::from(file.trim_end());
            if file.starts_with(directory) {
                devices.push((Path::new("/dev").join(entry.file_name()), file));
            }
        }
    }
    devices
}

/// Mounts the device of a mount a second time, under the name of a device node created for it.
pub(crate) fn alias(mounted: &Path, directory: &Path) -> PathBuf {
    let (node, target) = (directory.join("node"), directory.join("alias"));
    let device = fs::metadata(mounted).unwrap().dev();
    mknodat(CWD, &node, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device).unwrap();
    fs::create_dir(&target).unwrap();
    mount(&node, &target, "ext4", MountFlags::empty(), None).unwrap();
    target
}
