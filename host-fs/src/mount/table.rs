//! The mount table of a namespace and the questions asked of it.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::entry::{Device, Mount};
use super::events::MountEvents;
use super::mountinfo::{self, ParseError};

/// How often a table that changes under the reader is read again.
const ATTEMPTS: usize = 32;

/// Why the mount table could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// `/proc` is missing or may not be read.
    #[error("cannot read the mount table /proc/{process}/mountinfo")]
    Read {
        /// The process whose table it is.
        process: String,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The text is not what proc(5) describes.
    #[error("cannot understand the mount table /proc/{process}/mountinfo")]
    Parse {
        /// The process whose table it is.
        process: String,
        /// The line.
        #[source]
        source: ParseError,
    },
    /// The mount table changed during every attempt, on a kernel that may then leave out lines.
    #[error("the mount table changed during each of {ATTEMPTS} attempts to read it; try again")]
    Unsettled,
}

/// A snapshot of a mount table, in the kernel's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountTable {
    mounts: Vec<Mount>,
}

impl MountTable {
    /// Reads the table of the calling thread's mount namespace.
    ///
    /// Threads may live in namespaces of their own, so this is not the table of the process.
    ///
    /// # Errors
    /// As [`MountTable::read_of`].
    pub fn read() -> Result<MountTable, TableError> {
        MountTable::read_of("thread-self")
    }

    /// Reads the table of a process, given by its id or as `self`.
    ///
    /// The kernel hands out a page per read(2) and lets mounts change in between; before Linux 5.8 a line can then
    /// be missing although its mount existed all the time. So the table is read again until poll(2) reports that
    /// nothing has changed since before the first byte.
    ///
    /// # Errors
    /// [`TableError::Read`] when `/proc` is missing or the process has ended, [`TableError::Parse`] for a text that the
    /// kernel does not write, [`TableError::Unsettled`] before Linux 5.8 when the table never stops changing.
    pub fn read_of(process: &str) -> Result<MountTable, TableError> {
        let unreadable = |source| TableError::Read {
            process: process.to_owned(),
            source,
        };
        let mut events = MountEvents::of(process).map_err(unreadable)?;
        let mut text = events.read().map_err(unreadable)?;
        let mut attempts = 1;
        while events.changed_within(Duration::ZERO).map_err(unreadable)? {
            if attempts == ATTEMPTS {
                if complete_while_changing() {
                    break;
                }
                return Err(TableError::Unsettled);
            }
            attempts += 1;
            text = events.read().map_err(unreadable)?;
        }
        MountTable::parse(&text).map_err(|source| TableError::Parse {
            process: process.to_owned(),
            source,
        })
    }

    /// Parses the text of a mount table.
    ///
    /// # Errors
    /// The number and text of the first line that is not in the format of proc(5).
    pub fn parse(text: &[u8]) -> Result<MountTable, ParseError> {
        Ok(MountTable {
            mounts: mountinfo::parse(text)?,
        })
    }

    /// Returns all mounts, also those hidden under others.
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// Returns the mount with this id.
    pub fn by_id(&self, id: u64) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.id == id)
    }

    /// Returns the mounts made from a source spelled exactly like this.
    pub fn by_source(&self, source: &OsStr) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(move |mount| mount.source == source)
    }

    /// Returns the mounts of the file system on this device.
    pub fn by_device(&self, device: Device) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(move |mount| mount.device == device)
    }

    /// Returns the mounts one over the other at a path, the visible one last.
    ///
    /// The path must be free of symbolic links. Mounts whose path can no longer be reached, because something was
    /// mounted over a directory above, do not count.
    pub fn layers_at(&self, path: &Path) -> Vec<&Mount> {
        let mut layers = self.on_the_way_to(path);
        layers.retain(|mount| mount.point == path);
        layers
    }

    /// Returns the mount that holds a path: the visible one at it or at the nearest directory above.
    ///
    /// The path must be absolute and free of symbolic links.
    pub fn holding(&self, path: &Path) -> Option<&Mount> {
        self.on_the_way_to(path).pop()
    }

    /// Returns where a mount lies in the file system of its parent.
    ///
    /// Propagation makes copies of a mount wherever that directory is visible too. They have other paths, but lie in
    /// the same place, and are unmounted with the one that was made.
    pub fn place(&self, mount: &Mount) -> Option<(Device, PathBuf)> {
        let parent = self.by_id(mount.parent)?;
        let below = mount.point.strip_prefix(&parent.point).ok()?;
        Some((parent.device, parent.root.join(below)))
    }

    /// Returns where the last mount in the table that was made from this source is mounted.
    ///
    /// Programs that keep one mount point for each source, as Flocker's dataset agent does, keep this one.
    pub fn last_point_of(&self, source: &OsStr) -> Option<&Path> {
        self.by_source(source).last().map(|mount| mount.point.as_path())
    }

    /// Follows a path from the root the way the kernel does, through every mount it crosses.
    ///
    /// Ids are given to other mounts after an unmount, so a table that was read while it changed may show mounts that
    /// lie on each other, or above what they lie on. The walk leads down, and ends at a mount that it meets for the
    /// second time.
    fn on_the_way_to(&self, path: &Path) -> Vec<&Mount> {
        let mut crossed: Vec<&Mount> = Vec::new();
        let mut next = self.first_below(path, |mount| {
            mount.parent == mount.id || self.by_id(mount.parent).is_none()
        });
        while let Some(mount) = next
            && !crossed.iter().any(|earlier| std::ptr::eq(*earlier, mount))
        {
            crossed.push(mount);
            next = self.first_below(path, |child| {
                child.parent == mount.id && child.id != mount.id && child.point.starts_with(&mount.point)
            });
        }
        crossed
    }

    /// Returns the first mount a walk to the path meets among those that pass the test.
    fn first_below(&self, path: &Path, test: impl Fn(&Mount) -> bool) -> Option<&Mount> {
        self.mounts
            .iter()
            .filter(|mount| path.starts_with(&mount.point) && test(mount))
            .min_by_key(|mount| mount.point.as_os_str().len())
    }
}

/// Returns whether the kernel lists every mount that stays, while other mounts are made and unmounted (Linux 5.8).
fn complete_while_changing() -> bool {
    let release = rustix::system::uname();
    let mut numbers = release
        .release()
        .to_bytes()
        .split(|byte| !byte.is_ascii_digit())
        .map(|number| {
            std::str::from_utf8(number)
                .ok()
                .and_then(|number| number.parse::<u32>().ok())
                .unwrap_or_default()
        });
    (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    ) >= (5, 8)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bind, in_own_namespace, tmpfs, tmpfs_named};
    use super::super::unmount::{Patience, unmount_top};
    use super::*;
    use std::path::PathBuf;

    fn points(layers: &[&Mount]) -> Vec<String> {
        layers
            .iter()
            .map(|mount| mount.source.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn mounts_on_one_path_are_listed_from_the_bottom_up() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a");
            for name in ["bottom", "middle", "top"] {
                tmpfs_named(name, &point);
            }
            let table = MountTable::read().unwrap();
            assert_eq!(points(&table.layers_at(&point)), ["bottom", "middle", "top"]);
            assert_eq!(table.holding(&point.join("file")).unwrap().source, "top");
        });
    }

    #[test]
    fn a_mount_hidden_by_another_above_it_does_not_count() {
        in_own_namespace(|scratch| {
            let (above, below) = (scratch.join("a"), scratch.join("a/b"));
            tmpfs(&above);
            tmpfs_named("hidden", &below);
            tmpfs_named("cover", &above);
            std::fs::create_dir(&below).unwrap();
            let table = MountTable::read().unwrap();
            assert_eq!(table.by_source(OsStr::new("hidden")).count(), 1);
            assert!(table.layers_at(&below).is_empty());
            assert_eq!(table.holding(&below).unwrap().source, "cover");
        });
    }

    #[test]
    fn a_sibling_whose_name_begins_alike_holds_nothing() {
        in_own_namespace(|scratch| {
            tmpfs_named("short", &scratch.join("vol"));
            let table = MountTable::read().unwrap();
            assert_ne!(
                table.holding(&scratch.join("volume/file")).unwrap().source,
                "short"
            );
        });
    }

    #[test]
    fn the_last_mount_of_a_source_is_the_last_in_the_table() {
        in_own_namespace(|scratch| {
            let (flocker, target) = (scratch.join("flocker"), scratch.join("target"));
            tmpfs_named("device", &flocker);
            bind(&flocker, &target);
            let table = MountTable::read().unwrap();
            assert_eq!(table.last_point_of(OsStr::new("device")), Some(target.as_path()));
            assert_eq!(
                table.by_device(table.holding(&flocker).unwrap().device).count(),
                2
            );
        });
    }

    #[test]
    fn a_path_with_every_special_character_is_found() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a b\tc\nd\\e#f");
            tmpfs_named("so urce#", &point);
            let table = MountTable::read().unwrap();
            assert_eq!(points(&table.layers_at(&point)), ["so urce#"]);
        });
    }

    #[test]
    fn mounts_that_lie_on_each_other_end_the_way() {
        let text =
            b"1 0 8:0 / / rw - ext4 root rw\n2 1 0:40 / /a rw - tmpfs a rw\n1 2 0:41 / /a rw - tmpfs b rw\n";
        let table = MountTable::parse(text).unwrap();
        assert_eq!(points(&table.layers_at(Path::new("/a"))), ["a", "b"]);

        let text = b"1 0 8:0 / /a rw - ext4 root rw\n2 1 0:40 / / rw - tmpfs above rw\n";
        let table = MountTable::parse(text).unwrap();
        assert_eq!(table.holding(Path::new("/a/file")).unwrap().source, "root");
    }

    #[test]
    fn the_root_is_a_mount_like_any_other() {
        in_own_namespace(|_| {
            let table = MountTable::read().unwrap();
            assert_eq!(
                table.layers_at(Path::new("/")).last().map(|mount| &mount.point),
                Some(&PathBuf::from("/"))
            );
        });
    }

    #[test]
    fn this_kernel_lists_mounts_that_stay() {
        assert!(complete_while_changing(), "tests run on Linux 5.8 or later");
    }

    #[test]
    fn a_table_that_never_settles_is_read_all_the_same() {
        in_own_namespace(|scratch| {
            tmpfs_named("stays", &scratch.join("stays"));
            let flapping = scratch.join("flapping");
            std::fs::create_dir(&flapping).unwrap();
            let stop = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        tmpfs(&flapping);
                        unmount_top(&flapping, Patience::default()).unwrap();
                    }
                });
                for _ in 0..200 {
                    let table = MountTable::read().unwrap();
                    assert_eq!(table.by_source(OsStr::new("stays")).count(), 1);
                }
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            });
        });
    }
}
