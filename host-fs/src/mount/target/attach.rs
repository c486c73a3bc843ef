//! Making a mount appear at a target.
//!
//! A new mount is attached to the name in the open directory, without following a link there; a kernel before 5.2 can only
//! mount on an open directory. Either way the directory may be given another name at that very moment, and the mount is
//! there then: that is found out afterwards, through the mount itself, and undone. Once it is a mount point, the directory
//! keeps its name.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount, mount_move, move_mount,
};

use super::{Target, parent, path_of_descriptor};
use crate::mount::unmount::{Patience, unmount_top};

impl Target {
    /// Mounts a file system at the directory, which must exist, without options.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn mount(&self, source: &Path, fs_type: &str) -> io::Result<()> {
        match fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(context) => {
                let made = self.attach_new(context.as_fd(), source)?;
                self.settle(made)
            }
            Err(Errno::NOSYS | Errno::PERM) => self.mount_by_path(source, fs_type),
            Err(error) => Err(error.into()),
        }
    }

    fn attach_new(&self, context: BorrowedFd<'_>, source: &Path) -> Result<OwnedFd, Errno> {
        fsconfig_set_string(context, "source", source)?;
        fsconfig_create(context)?;
        let made = fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        self.attach(made.as_fd())?;
        Ok(made)
    }

    /// Moves the mount with this root to the directory, which must exist. The caller then checks that it is there, or lets
    /// [`Target::settle`] do so.
    pub(in crate::mount) fn attach(&self, detached: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(detached, "", self.parent(), self.name(), flags)
    }

    /// Moves the mount at a path to the directory, which must exist.
    pub(in crate::mount) fn move_here(&self, from: &Path) -> io::Result<()> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let moving = openat(CWD, from, directory, Mode::empty())?;
        match self.attach(moving.as_fd()) {
            Ok(()) => self.settle(moving),
            Err(Errno::NOSYS | Errno::PERM) => self.on_open_directory(|here| mount_move(from, here)),
            Err(error) => Err(error.into()),
        }
    }

    /// Does what [`Target::mount`] does on every Linux.
    fn mount_by_path(&self, source: &Path, fs_type: &str) -> io::Result<()> {
        self.on_open_directory(|here| mount(source, here, fs_type, MountFlags::empty(), None))
    }

    /// Mounts on the open directory, and unmounts again if its name was given to something else before that.
    fn on_open_directory(&self, mounting: impl FnOnce(&Path) -> Result<(), Errno>) -> io::Result<()> {
        let directory = self.open_directory()?;
        mounting(&path_of_descriptor(directory.as_fd()))?;
        self.settle(directory)
    }

    /// Checks that a mount was attached to this target, given its root or the directory that it lies on, and unmounts it
    /// where it was attached to another name.
    ///
    /// # Errors
    /// It is not at the target.
    pub(in crate::mount) fn settle(&self, mounted: OwnedFd) -> io::Result<()> {
        // Above the root of a mount is what is above the directory that it lies on.
        let above = openat(
            &mounted,
            "..",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let path = parent::path_of(mounted.as_fd())?;
        let name = path.file_name().unwrap_or_default();
        if name == self.name() && parent::is_same(above.as_fd(), self.parent())? {
            return Ok(());
        }
        // The mount is at another name, and nowhere else.
        drop(mounted);
        unmount_top(&path_of_descriptor(above.as_fd()).join(name), Patience::default())?;
        Err(io::Error::other(
            "the directory was given another name while the volume was mounted on it",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::lookup::layers_at;
    use super::super::super::testing::{in_own_namespace, tmpfs_named};
    use super::*;
    use std::os::unix::fs::symlink;

    type Way = fn(&Target, &Path) -> io::Result<()>;

    /// Both ways to mount, and both to move, on a shared or private mount: nothing moves away from a shared one.
    const WAYS: [Way; 4] = [
        |target, _| target.mount(Path::new("volume"), "tmpfs"),
        |target, _| target.mount_by_path(Path::new("volume"), "tmpfs"),
        |target, from| target.move_here(from),
        |target, from| target.on_open_directory(|here| mount_move(from, here)),
    ];

    #[test]
    fn every_way_mounts_at_the_target() {
        for way in WAYS {
            in_own_namespace(move |scratch| {
                let (from, to) = (scratch.join("from"), scratch.join("to"));
                tmpfs_named("volume", &from);
                std::fs::create_dir(&to).unwrap();
                way(&Target::open(&to).unwrap(), &from).unwrap();
                let mounts = layers_at(&to).unwrap();
                assert_eq!(mounts.len(), 1);
                assert_eq!(mounts[0].source, "volume");
            });
        }
    }

    #[test]
    fn no_way_follows_a_link_at_the_target() {
        for way in WAYS {
            in_own_namespace(move |scratch| {
                let (from, to, other) = (scratch.join("from"), scratch.join("to"), scratch.join("other"));
                tmpfs_named("volume", &from);
                std::fs::create_dir(&to).unwrap();
                std::fs::create_dir(&other).unwrap();
                let target = Target::open(&to).unwrap();
                std::fs::remove_dir(&to).unwrap();
                symlink(&other, &to).unwrap();
                way(&target, &from).unwrap_err();
                assert!(layers_at(&other).unwrap().is_empty());
            });
        }
    }

    #[test]
    fn a_directory_that_loses_its_name_at_that_moment_does_not_stay_mounted() {
        in_own_namespace(|scratch| {
            let (to, moved) = (scratch.join("to"), scratch.join("moved"));
            std::fs::create_dir(&to).unwrap();
            let target = Target::open(&to).unwrap();
            let error = target.on_open_directory(|here| {
                std::fs::rename(&to, &moved).unwrap();
                mount("volume", here, "tmpfs", MountFlags::empty(), None)
            });
            assert!(error.is_err());
            assert!(layers_at(&moved).unwrap().is_empty());
        });
    }

    #[test]
    fn a_mount_that_was_attached_to_another_name_is_unmounted_there() {
        in_own_namespace(|scratch| {
            let (to, moved) = (scratch.join("to"), scratch.join("moved"));
            std::fs::create_dir(&to).unwrap();
            let target = Target::open(&to).unwrap();
            tmpfs_named("volume", &moved);
            let root =
                |path: &Path| openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
            target.settle(root(&moved)).unwrap_err();
            assert!(layers_at(&moved).unwrap().is_empty());
            tmpfs_named("volume", &to);
            target.settle(root(&to)).unwrap();
            assert_eq!(layers_at(&to).unwrap().len(), 1);
        });
    }
}
