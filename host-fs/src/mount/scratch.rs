//! Private mounts on which another mount is finished before it is moved to where it is visible.

use std::error::Error;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountAttrFlags as Attr, MountPropagationFlags, mount_change};
use sys_mount::MountFlags as Sys;

use super::entry::Mount;
use super::table::{MountTable, TableError};
use super::target::{Target, path_of_descriptor};
use super::unmount::{Patience, unmount_top};
use crate::removal::remove_directory;

/// Per-mount attributes with the flags of mount(2) that stand for them.
const FLAGS: [(Attr, Sys); 8] = [
    (Attr::MOUNT_ATTR_RDONLY, Sys::RDONLY),
    (Attr::MOUNT_ATTR_NOSUID, Sys::NOSUID),
    (Attr::MOUNT_ATTR_NODEV, Sys::NODEV),
    (Attr::MOUNT_ATTR_NOEXEC, Sys::NOEXEC),
    (Attr::MOUNT_ATTR_NOATIME, Sys::NOATIME),
    (Attr::MOUNT_ATTR_STRICTATIME, Sys::STRICTATIME),
    (Attr::MOUNT_ATTR_NODIRATIME, Sys::NODIRATIME),
    (
        Attr::MOUNT_ATTR_NOSYMFOLLOW,
        Sys::from_bits_retain(libc::MS_NOSYMFOLLOW),
    ),
];

/// Why a mount could not be prepared, or what remains of it not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScratchError {
    /// The kernel refused a step.
    #[error("cannot {step} {}", .path.display())]
    Step {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The mount table could not be read.
    #[error("cannot look for unfinished mounts in {}", .path.display())]
    Table {
        /// The directory of the unfinished mounts.
        path: PathBuf,
        /// What failed.
        #[source]
        source: TableError,
    },
}

fn step_error<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> ScratchError {
    move |error| ScratchError::Step {
        step,
        path: path.to_owned(),
        source: error.into(),
    }
}

/// A directory in which unfinished mounts live, each on a private mount of its own.
#[derive(Debug, Clone)]
pub(super) struct ScratchMounts {
    directory: PathBuf,
}

impl ScratchMounts {
    pub(super) fn new(directory: &Path) -> ScratchMounts {
        ScratchMounts {
            directory: directory.to_owned(),
        }
    }

    /// Binds an open mount to a target, complete with its attributes when it appears there.
    pub(super) fn bind(
        &self,
        root: BorrowedFd<'_>,
        wanted: Attr,
        target: &Target,
    ) -> Result<(), ScratchError> {
        let directory = &self.directory;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(step_error("make", directory))?;
        let scratch_mount = ScratchMount::new(directory)?;
        let unfinished = scratch_mount.unfinished();
        // Through the descriptor, so that it is this mount even if its path leads elsewhere by now.
        let bind = sys_mount::Mount::builder().fstype("none").flags(Sys::BIND);
        bind.mount(path_of_descriptor(root), &unfinished)
            .map_err(step_error("bind the mount to", &unfinished))?;
        // What this call does not name is cleared, so it names what was inherited too.
        let flags = Sys::BIND | Sys::REMOUNT | flags_of(wanted);
        let change = sys_mount::Mount::builder().fstype("none").flags(flags);
        change
            .mount("", &unfinished)
            .map_err(step_error("set the flags of", &unfinished))?;
        let moving = "move the finished mount to";
        target
            .move_here(&unfinished)
            .map_err(step_error(moving, target.path()))
    }

    /// Unmounts and removes everything in the directory, and returns how many mounts there were.
    pub(super) fn clear(&self) -> Result<usize, ScratchError> {
        let directory = match self.directory.canonicalize() {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(step_error("look up", &self.directory)(error)),
        };
        let table = MountTable::read();
        let table = table.map_err(|source| ScratchError::Table {
            path: directory.clone(),
            source,
        })?;
        let below = |mount: &&Mount| mount.point.starts_with(&directory) && mount.point != directory;
        let mut points: Vec<_> = table
            .mounts()
            .iter()
            .filter(below)
            .map(|mount| &mount.point)
            .collect();
        points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
        for point in &points {
            unmount_top(point, Patience::default()).map_err(step_error("unmount the unfinished", point))?;
        }
        for entry in std::fs::read_dir(&directory)
            .map_err(step_error("list", &directory))?
            .flatten()
        {
            // Nothing is mounted there any more, and no bind needs the name: a full or read-only disk prevents no start.
            if let Err(error) = remove_directories(&entry.path()) {
                warn_of_leftover(&entry.path(), &error);
            }
        }
        Ok(points.len())
    }
}

/// The name of the mount that is not finished.
const UNFINISHED: &str = "unfinished";

/// A directory bound to itself and made private: what is mounted in it spreads nowhere, and can be moved out.
struct ScratchMount {
    directory: PathBuf,
}

impl ScratchMount {
    fn new(parent: &Path) -> Result<ScratchMount, ScratchError> {
        // Kept, because a temporary directory removes its contents, which may be the data of a volume.
        let directory = tempfile::tempdir_in(parent)
            .map_err(step_error("make a directory in", parent))?
            .keep();
        let scratch_mount = ScratchMount { directory };
        let path = scratch_mount.directory.as_path();
        std::fs::create_dir(scratch_mount.unfinished()).map_err(step_error("make a directory in", path))?;
        let bind = sys_mount::Mount::builder().fstype("none").flags(Sys::BIND);
        bind.mount(path, path)
            .map_err(step_error("bind to itself", path))?;
        mount_change(path, MountPropagationFlags::PRIVATE).map_err(step_error("make private", path))?;
        Ok(scratch_mount)
    }

    fn unfinished(&self) -> PathBuf {
        self.directory.join(UNFINISHED)
    }

    /// Unmounts both mounts, the unfinished one first, which exists only after a failure.
    fn dismantle(&self) -> Result<(), ScratchError> {
        for path in [self.unfinished(), self.directory.clone()] {
            match unmount_top(&path, Patience::default()) {
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(step_error("unmount the unfinished", &path)(error)),
            }
        }
        remove_directories(&self.directory)
    }
}

impl Drop for ScratchMount {
    fn drop(&mut self) {
        if let Err(error) = self.dismantle() {
            warn_of_leftover(&self.directory, &error);
        }
    }
}

fn warn_of_leftover(path: &Path, error: &ScratchError) {
    tracing::warn!(
        path = %path.display(),
        error = %error,
        cause = error.source().map(tracing::field::display),
        "Could not remove an unfinished mount; the next start does",
    );
}

/// Removes the directories of a scratch mount, never what is in them.
fn remove_directories(directory: &Path) -> Result<(), ScratchError> {
    for path in [&directory.join(UNFINISHED), directory] {
        remove_directory(path).map_err(step_error("remove", path))?;
    }
    Ok(())
}

fn flags_of(attributes: Attr) -> Sys {
    // Without one of them the kernel would keep the access times of the source.
    let relatime = if attributes.intersects(Attr::MOUNT_ATTR__ATIME) {
        Sys::empty()
    } else {
        Sys::RELATIME
    };
    let named = FLAGS
        .iter()
        .filter(|(attribute, _)| attributes.contains(*attribute));
    named.fold(relatime, |flags, (_, flag)| flags | *flag)
}

#[cfg(test)]
mod tests {
    use super::super::handle::open_mount;
    use super::super::lookup::layers_at;
    use super::super::testing::{in_own_namespace, tmpfs};
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn unfinished_mounts_of_a_killed_process_are_removed() {
        in_own_namespace(|scratch| {
            let (source, work) = (scratch.join("source"), scratch.join("work"));
            tmpfs(&source);
            std::fs::create_dir(&work).unwrap();
            let scratch_mount = ScratchMount::new(&work).unwrap();
            rustix::mount::mount_bind(&source, scratch_mount.unfinished()).unwrap();
            std::mem::forget(scratch_mount);

            let mounts = ScratchMounts::new(&work);
            assert_eq!(mounts.clear().unwrap(), 2);
            assert_eq!(std::fs::read_dir(&work).unwrap().count(), 0);
            assert_eq!(mounts.clear().unwrap(), 0);
            assert_eq!(layers_at(&source).unwrap().len(), 1);
        });
    }

    #[test]
    fn a_failed_bind_leaves_nothing() {
        in_own_namespace(|scratch| {
            let (source, work) = (scratch.join("source"), scratch.join("work"));
            tmpfs(&source);
            let source = layers_at(&source).unwrap().pop().unwrap();
            let root = open_mount(&source).unwrap();
            let before = MountTable::read().unwrap();
            let error = ScratchMounts::new(&work)
                .bind(
                    root.as_fd(),
                    Attr::empty(),
                    &Target::open(&scratch.join("missing")).unwrap(),
                )
                .unwrap_err();
            assert!(
                error.to_string().starts_with("cannot move the finished mount"),
                "{error}"
            );
            assert_eq!(MountTable::read().unwrap(), before);
            assert_eq!(std::fs::read_dir(&work).unwrap().count(), 0);
        });
    }

    #[test]
    fn data_in_a_mount_that_cannot_be_unmounted_is_kept() {
        in_own_namespace(|scratch| {
            let scratch_mount = ScratchMount::new(scratch).unwrap();
            let file = scratch_mount.unfinished().join("file");
            tmpfs(&scratch_mount.unfinished());
            std::fs::write(&file, "precious").unwrap();
            let open = std::fs::File::open(&file).unwrap();
            drop(scratch_mount);
            assert_eq!(std::fs::read(&file).unwrap(), b"precious");
            drop(open);
            assert_eq!(ScratchMounts::new(scratch).clear().unwrap(), 2);
        });
    }

    #[test]
    fn a_missing_directory_has_nothing_to_remove() {
        assert_eq!(
            ScratchMounts::new(Path::new("/nonexistent/work"))
                .clear()
                .unwrap(),
            0
        );
    }
}
