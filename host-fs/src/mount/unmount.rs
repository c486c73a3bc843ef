//! Taking the plugin's mounts away again, and nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::entry::Mount;
use super::events::MountEvents;
use super::holders::{Holders, find_holders};
use super::lookup::layers_at;
use super::table::TableError;

/// Why something is still mounted.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// A mount at the path belongs to somebody else.
    #[error("{} is in use by a mount that is not the plugin's and is left alone: {found}", .path.display())]
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
        /// Who uses it.
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
    /// The directory of the mount could not be removed.
    #[error("cannot remove the directory {}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the file system answered.
        #[source]
        source: io::Error,
    },
    /// The mount table could not be read.
    #[error("cannot tell what is mounted at {}", .path.display())]
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
    /// Gives up at once.
    pub fn none() -> Patience {
        Patience {
            retries: 0,
            pause: Duration::ZERO,
        }
    }
}

/// Unmounts every layer at a path that is `owned`, and answers how many there were.
///
/// The path must be free of symbolic links. Nothing mounted, or no such path, is success with 0. The first layer from
/// the top that is somebody else's is an error, after those above it have gone.
pub fn unmount_owned(
    path: &Path,
    owned: impl Fn(&Mount) -> bool,
    patience: Patience,
) -> Result<usize, UnmountError> {
    let mut removed = 0;
    while let Some(top) = visible(path)? {
        if !owned(&top) {
            return Err(UnmountError::Foreign {
                path: path.to_owned(),
                found: Box::new(top),
            });
        }
        match unmount_top(path, patience) {
            Ok(()) => removed += 1,
            Err(Errno::BUSY) => {
                return Err(UnmountError::Busy {
                    path: path.to_owned(),
                    holders: find_holders(&top),
                });
            }
            Err(errno) => {
                // Not a mount point, or no such path: somebody else may have been faster.
                let still_there = visible(path)?.is_some_and(|mount| mount.id == top.id);
                if still_there || !matches!(errno, Errno::INVAL | Errno::NOENT) {
                    return Err(UnmountError::Refused {
                        path: path.to_owned(),
                        source: errno.into(),
                    });
                }
            }
        }
    }
    Ok(removed)
}

/// Unmounts the visible mount at a path, trying again while it is busy.
///
/// Whoever looks at open files through `/proc` makes a mount busy for a moment, so one attempt is hardly ever enough.
pub fn unmount_top(path: &Path, patience: Patience) -> Result<(), Errno> {
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

fn visible(path: &Path) -> Result<Option<Mount>, UnmountError> {
    let layers = layers_at(path).map_err(|source| UnmountError::Table {
        path: path.to_owned(),
        source,
    });
    Ok(layers?.pop())
}

#[cfg(test)]
mod tests {
    use super::super::table::MountTable;
    use super::super::testing::{bind, in_own_namespace, tmpfs, tmpfs_named};
    use super::*;
    use std::ffi::OsStr;

    const OURS: &str = "/dev/volumes/1";

    fn ours(mount: &Mount) -> bool {
        mount.source == OURS
    }

    fn mount_ours(point: &Path) {
        tmpfs_named(OURS, point);
    }

    #[test]
    fn every_layer_of_the_volume_goes() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a");
            for _ in 0..3 {
                mount_ours(&point);
            }
            assert_eq!(unmount_owned(&point, ours, Patience::none()).unwrap(), 3);
            assert!(layers_at(&point).unwrap().is_empty());
            assert_eq!(unmount_owned(&point, ours, Patience::none()).unwrap(), 0);
            assert_eq!(
                unmount_owned(&scratch.join("missing/path"), ours, Patience::none()).unwrap(),
                0
            );
        });
    }

    #[test]
    fn somebody_elses_mount_is_named_and_stays() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a");
            mount_ours(&point);
            tmpfs_named("theirs", &point);
            mount_ours(&point);
            let error = unmount_owned(&point, ours, Patience::none()).unwrap_err();
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
            unmount_owned(&one, ours, Patience::none()).unwrap();
            let table = MountTable::read().unwrap();
            let left: Vec<_> = table
                .by_source(OsStr::new(OURS))
                .map(|mount| &mount.point)
                .collect();
            assert_eq!(left, [&alias, &two]);
        });
    }

    #[test]
    fn a_busy_volume_stays_and_its_user_is_named() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a");
            mount_ours(&point);
            let open = std::fs::File::create(point.join("file")).unwrap();
            let patience = Patience {
                retries: 2,
                pause: Duration::from_millis(1),
            };
            let error = unmount_owned(&point, ours, patience).unwrap_err().to_string();
            assert!(
                error.contains(&format!("process {}", std::process::id())),
                "{error}"
            );
            assert!(error.contains("a/file open"), "{error}");
            assert_eq!(layers_at(&point).unwrap().len(), 1);
            drop(open);
            assert_eq!(unmount_owned(&point, ours, Patience::none()).unwrap(), 1);
        });
    }

    #[test]
    fn a_mount_below_that_goes_away_ends_the_wait() {
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
                let waiting = scope.spawn(move || unmount_owned(point, ours, patience));
                unmount_top(&below, Patience::default()).unwrap();
                assert_eq!(waiting.join().unwrap().unwrap(), 1);
            });
        });
    }

    #[test]
    fn a_link_to_a_mount_is_not_followed() {
        in_own_namespace(|scratch| {
            let (point, link) = (scratch.join("a"), scratch.join("link"));
            mount_ours(&point);
            std::os::unix::fs::symlink(&point, &link).unwrap();
            assert_eq!(unmount_owned(&link, ours, Patience::none()).unwrap(), 0);
            assert_eq!(layers_at(&point).unwrap().len(), 1);
        });
    }
}
