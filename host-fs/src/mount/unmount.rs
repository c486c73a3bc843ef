//! Unmounting what is known, and nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::entry::Mount;
use super::events::MountEvents;
use super::holders::{Holders, find_holders};
use super::table::TableError;
use super::target::{Target, TargetError};

/// Why something is still mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnmountError {
    /// A mount at the path is not the caller's.
    #[error("{} is in use by a mount that is not the plugin's and is left unchanged: {found}", .path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// What is mounted there.
        found: Box<Mount>,
    },
    /// The volume is in use.
    #[error("{} is busy: {holders}", .path.display())]
    Busy {
        /// The path.
        path: PathBuf,
        /// The processes and mounts that use it.
        holders: Holders,
    },
    /// The kernel refused.
    #[error("cannot unmount {}", .path.display())]
    Refused {
        /// The path.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The directory at which it may be mounted cannot be reached.
    #[error("cannot reach {}, where it may be mounted", .path.display())]
    Unreachable {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: TargetError,
    },
    /// The mount table could not be read.
    #[error("cannot read what is mounted at {}", .path.display())]
    Table {
        /// The path.
        path: PathBuf,
        /// What failed.
        #[source]
        source: TableError,
    },
}

/// How long a busy mount is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The number of further attempts.
    pub retries: u32,
    /// The pause before the first of them, doubled each time; a change of the mount table ends it early.
    pub pause: Duration,
}

impl Default for Patience {
    /// Waits a second and a half in all: a process that has just been killed closes its files in that time.
    fn default() -> Self {
        Patience {
            retries: 4,
            pause: Duration::from_millis(100),
        }
    }
}

impl Patience {
    /// Tries once.
    pub fn none() -> Patience {
        Patience {
            retries: 0,
            pause: Duration::ZERO,
        }
    }
}

/// Unmounts every layer at a target that is `owned`, and returns how many there were.
///
/// The work begins with what the target shows, so open or [refresh](Target::refresh) it right before. The path that
/// leads to each mount starts at the target's open directory and is not followed at its end; no mount is detached
/// lazily. Nothing mounted is success with 0.
///
/// # Errors
/// [`UnmountError::Foreign`] for the first layer from the top that is not `owned`, after those above it are unmounted;
/// [`UnmountError::Busy`] with the processes and mounts that use the layer; [`UnmountError::Refused`] and
/// [`UnmountError::Table`] when the kernel refuses.
pub fn unmount_owned(
    target: &Target,
    owned: impl Fn(&Mount) -> bool,
    patience: Patience,
) -> Result<usize, UnmountError> {
    let path = || target.path().to_owned();
    let table = |source| UnmountError::Table { path: path(), source };
    let mut removed = 0;
    let mut next = match target.top().map_err(table)? {
        // A caller relies on there being nothing, so the target is read again.
        None => target.top_now().map_err(table)?,
        top => top,
    };
    while let Some(top) = next {
        if !owned(&top.mount) {
            return Err(UnmountError::Foreign {
                path: path(),
                found: Box::new(top.mount),
            });
        }
        let unmounted = unmount_top(&target.path_by_descriptor(), patience);
        if unmounted == Err(Errno::BUSY) {
            return Err(UnmountError::Busy {
                path: path(),
                holders: find_holders(&top.mount),
            });
        }
        next = target.top_now().map_err(table)?;
        let stays = next.as_ref().is_some_and(|next| next.is_same(&top));
        match unmounted {
            Ok(()) if stays => {
                // After the target was read, another process mounted something over it, and that was unmounted.
                tracing::warn!(path = %target.path().display(), "Unmounted a mount that appeared over {}", top.mount);
            }
            Ok(()) => removed += 1,
            // Not a mount point, or no such path: another process unmounted it.
            Err(Errno::INVAL | Errno::NOENT) if !stays => {}
            Err(errno) => {
                return Err(UnmountError::Refused {
                    path: path(),
                    source: errno.into(),
                });
            }
        }
    }
    Ok(removed)
}

/// Unmounts the visible mount at a path, and tries again while it is busy.
///
/// A process that reads the open files of other processes through `/proc` makes a mount busy for a moment, so one attempt is
/// hardly ever enough.
pub(super) fn unmount_top(path: &Path, patience: Patience) -> Result<(), Errno> {
    let attempt = || unmount(path, UnmountFlags::NOFOLLOW);
    let first = attempt();
    if first != Err(Errno::BUSY) || patience.retries == 0 {
        return first;
    }
    // Opened before the next attempt, so that what changes right after that is not missed.
    let Ok(events) = MountEvents::of_this_thread() else {
        return first;
    };
    let mut pause = patience.pause;
    for _ in 0..patience.retries {
        match attempt() {
            Err(Errno::BUSY) => {}
            answer => return answer,
        }
        if events.changed_within(pause).is_err() {
            break;
        }
        pause = pause.saturating_mul(2);
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use super::super::lookup::layers_at;
    use super::super::table::MountTable;
    use super::super::testing::{bind, in_own_namespace, tmpfs, tmpfs_named};
    use super::*;
    use std::ffi::OsStr;

    const OURS: &str = "/dev/volumes/1";

    fn ours(mount: &Mount) -> bool {
        mount.source == OURS
    }

    fn target(path: &Path) -> Target {
        Target::open(path).unwrap()
    }

    fn mount_ours(point: &Path) {
        tmpfs_named(OURS, point);
    }

    #[test]
    fn every_layer_of_the_volume_is_unmounted() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a");
            for _ in 0..3 {
                mount_ours(&point);
            }
            assert_eq!(unmount_owned(&target(&point), ours, Patience::none()).unwrap(), 3);
            assert!(layers_at(&point).unwrap().is_empty());
            assert_eq!(unmount_owned(&target(&point), ours, Patience::none()).unwrap(), 0);
            assert_eq!(
                unmount_owned(&target(&scratch.join("missing")), ours, Patience::none()).unwrap(),
                0
            );
        });
    }

    #[test]
    fn a_foreign_mount_is_named_and_stays() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a");
            mount_ours(&point);
            tmpfs_named("theirs", &point);
            mount_ours(&point);
            let error = unmount_owned(&target(&point), ours, Patience::none()).unwrap_err();
            assert!(
                matches!(&error, UnmountError::Foreign { found, .. } if found.source == "theirs"),
                "{error}"
            );
            assert!(error.to_string().contains("tmpfs of theirs"), "{error}");
            assert_eq!(layers_at(&point).unwrap().len(), 2);
        });
    }

    #[test]
    fn other_mounts_of_the_volume_are_not_touched() {
        in_own_namespace(|scratch| {
            let (alias, one, two) = (scratch.join("alias"), scratch.join("one"), scratch.join("two"));
            mount_ours(&alias);
            bind(&alias, &one);
            bind(&alias, &two);
            unmount_owned(&target(&one), ours, Patience::none()).unwrap();
            let table = MountTable::read().unwrap();
            let left: Vec<_> = table
                .by_source(OsStr::new(OURS))
                .map(|mount| &mount.point)
                .collect();
            assert_eq!(left, [&alias, &two]);
        });
    }

    #[test]
    fn a_busy_volume_stays_and_the_process_is_named() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a");
            mount_ours(&point);
            let open = std::fs::File::create(point.join("file")).unwrap();
            let patience = Patience {
                retries: 2,
                pause: Duration::from_millis(1),
            };
            let error = unmount_owned(&target(&point), ours, patience)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(&format!("process {}", std::process::id())),
                "{error}"
            );
            assert!(error.contains("a/file open"), "{error}");
            assert_eq!(layers_at(&point).unwrap().len(), 1);
            drop(open);
            assert_eq!(unmount_owned(&target(&point), ours, Patience::none()).unwrap(), 1);
        });
    }

    #[test]
    fn the_unmount_of_a_mount_below_ends_the_wait() {
        in_own_namespace(|scratch| {
            let (point, below) = (scratch.join("a"), scratch.join("a/b"));
            mount_ours(&point);
            tmpfs(&below);
            std::thread::scope(|scope| {
                // So long a pause that only the change of the mount table can end it.
                let patience = Patience {
                    retries: 1,
                    pause: Duration::from_secs(3600),
                };
                let point = &point;
                let waiting = scope.spawn(move || unmount_owned(&target(point), ours, patience));
                unmount_top(&below, Patience::default()).unwrap();
                assert_eq!(waiting.join().unwrap().unwrap(), 1);
            });
        });
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_not_followed() {
        in_own_namespace(|scratch| {
            let (point, other) = (scratch.join("a"), scratch.join("b"));
            mount_ours(&point);
            std::fs::create_dir(&other).unwrap();
            let target = target(&other);
            std::fs::remove_dir(&other).unwrap();
            std::os::unix::fs::symlink(&point, &other).unwrap();
            assert_eq!(unmount_owned(&target, ours, Patience::none()).unwrap(), 0);
            assert_eq!(layers_at(&point).unwrap().len(), 1);
        });
    }

    #[test]
    fn a_directory_above_that_is_swapped_for_a_link_leads_to_no_other_mount() {
        in_own_namespace(|scratch| {
            let (above, other) = (scratch.join("above"), scratch.join("other"));
            for directory in [&above, &other] {
                std::fs::create_dir(directory).unwrap();
                mount_ours(&directory.join("a"));
            }
            let target = target(&above.join("a"));
            std::fs::rename(&above, scratch.join("moved")).unwrap();
            std::os::unix::fs::symlink(&other, &above).unwrap();
            assert_eq!(unmount_owned(&target, ours, Patience::none()).unwrap(), 1);
            assert_eq!(layers_at(&other.join("a")).unwrap().len(), 1);
            assert!(layers_at(&scratch.join("moved/a")).unwrap().is_empty());
        });
    }

    #[test]
    fn a_mount_that_appeared_since_the_target_was_opened_is_unmounted() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a");
            std::fs::create_dir(&point).unwrap();
            let target = target(&point);
            mount_ours(&point);
            assert_eq!(target.visible().unwrap(), None);
            assert!(target.clone().refresh().unwrap().visible().unwrap().is_some());
            assert_eq!(unmount_owned(&target, ours, Patience::none()).unwrap(), 1);
            assert!(layers_at(&point).unwrap().is_empty());
        });
    }
}
