//! A disk that loses what was not written to it when its power is cut.
//!
//! It is a file with an ext4 file system on a loop device. A power cut is simulated with a copy of that file: the kernel still
//! holds everything else that was written, and it never reaches the copy. What survives is decided by a real journal, as
//! on a real disk without a cache of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::support::eventually;
use crate::support::mounts::Mounts;
use crate::support::scratch::{Scratch, loop_devices_on};

/// Enough for a volume and its file system.
const SIZE: u64 = 160 << 20;
/// Nothing is written on its own account within this time, so that what survives is what was synced.
const COMMIT: &std::ffi::CStr = c"commit=600";

pub(super) struct Disk {
    scratch: Scratch,
    /// How many images were made.
    images: u32,
}

impl Disk {
    /// Makes an empty disk, and mounts it.
    pub(super) fn new() -> Self {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path().join("disk")).unwrap();
        let disk = Self { scratch, images: 0 };
        fs::File::create(disk.image()).unwrap().set_len(SIZE).unwrap();
        run("mkfs.ext4", &["-q", "-F"], &[&disk.image()]);
        disk.attach();
        disk
    }

    /// Returns where it is mounted.
    pub(super) fn path(&self) -> PathBuf {
        self.scratch.path().join("disk")
    }

    /// Returns a directory that is not on the disk.
    pub(super) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Cuts the power: what was not synced is lost, with all loop devices and mounts.
    pub(super) async fn cut_power(&mut self) {
        let survives = self.copy();
        self.replace_with(&survives).await;
    }

    /// Unmounts it, and keeps what it has for [`Self::restore`].
    pub(super) async fn save(&mut self) -> PathBuf {
        self.detach().await;
        let saved = self.copy();
        self.attach();
        saved
    }

    /// Makes it what it was when it was saved.
    pub(super) async fn restore(&mut self, saved: &Path) {
        self.images += 1;
        let copy = self.scratch.path().join(format!("image-{}", self.images));
        run("cp", &["--sparse=always"], &[saved, &copy]);
        self.replace_with(&copy).await;
    }

    fn image(&self) -> PathBuf {
        self.scratch.path().join("image")
    }

    fn copy(&mut self) -> PathBuf {
        self.images += 1;
        let copy = self.scratch.path().join(format!("image-{}", self.images));
        run("cp", &["--sparse=always"], &[&self.image(), &copy]);
        copy
    }

    async fn replace_with(&self, image: &Path) {
        self.detach().await;
        fs::rename(image, self.image()).unwrap();
        self.attach();
    }

    fn attach(&self) {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(self.image())
            .output()
            .unwrap();
        let device = String::from_utf8(output.stdout).unwrap();
        mount(device.trim(), self.path(), "ext4", MountFlags::empty(), COMMIT).unwrap();
    }

    /// Ends all mounts and loop devices: those of what is on the disk first, because their files have no path afterwards.
    async fn detach(&self) {
        let disk = self.path();
        self.free("what is on the disk is detached", &disk, |mount| mount != disk)
            .await;
        self.free("the disk is detached", self.scratch.path(), |_| true)
            .await;
    }

    async fn free(&self, what: &str, directory: &Path, includes: impl Fn(&Path) -> bool) {
        eventually(what, async || {
            let mounts = Mounts::read().below(&self.path());
            let mut mounts = mounts.iter().filter(|mount| includes(&mount.point)).rev();
            // A file system that is used for a moment by others is not hidden from them.
            let unmounted = mounts.all(|mount| unmount(&mount.point, UnmountFlags::empty()).is_ok());
            if !unmounted {
                return None;
            }
            let devices = loop_devices_on(directory);
            for device in &devices {
                Command::new("losetup")
                    .arg("--detach")
                    .arg(device)
                    .output()
                    .unwrap();
            }
            devices.is_empty().then_some(())
        })
        .await;
    }
}

fn run(program: &str, options: &[&str], files: &[&Path]) {
    let output = Command::new(program).args(options).args(files).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}
