//! What the kernel knows of a path without asking any file system.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::Errno;

/// `STATX_MNT_ID_UNIQUE` of Linux 6.8: an id that is never used again.
const UNIQUE_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// What the kernel has in memory of the way to a path.
#[derive(Debug)]
pub struct CachedParent {
    mount: Option<u64>,
    directory: Option<OwnedFd>,
}

impl CachedParent {
    /// Looks for the directory above a path, symbolic links followed, without asking any file system.
    ///
    /// Never blocks: the kernel refuses what it would have to ask a file system for (`RESOLVE_CACHED`, Linux 5.12).
    pub fn of(path: &Path) -> CachedParent {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::CACHED | ResolveFlags::NO_MAGICLINKS;
        for (distance, above) in path.ancestors().skip(1).enumerate() {
            match openat2(CWD, above, flags, Mode::empty(), resolve) {
                Ok(directory) => {
                    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
                    let status = statx(&directory, "", flags, StatxFlags::MNT_ID | UNIQUE_ID);
                    return CachedParent {
                        mount: status.ok().map(|status| status.stx_mnt_id),
                        directory: (distance == 0).then_some(directory),
                    };
                }
                Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => break,
                // Not in memory, or it does not exist: a directory above it does.
                Err(_) => {}
            }
        }
        CachedParent {
            mount: None,
            directory: None,
        }
    }

    /// Returns the id of the mount that a lookup of the path has to wait for: the one that holds the nearest directory
    /// above it that the kernel has in memory. `None` where the kernel does not say.
    pub fn mount(&self) -> Option<u64> {
        self.mount
    }

    /// Returns the directory right above the path, if the kernel had that in memory.
    pub(super) fn into_directory(self) -> Option<OwnedFd> {
        self.directory
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_own_namespace, tmpfs};
    use super::*;

    #[test]
    fn paths_below_one_mount_wait_for_that_and_links_are_followed() {
        in_own_namespace(|scratch| {
            let (one, other) = (scratch.join("one"), scratch.join("other"));
            tmpfs(&one);
            tmpfs(&other);
            std::fs::create_dir(one.join("inside")).unwrap();
            std::os::unix::fs::symlink(&one, other.join("link")).unwrap();
            let id = |path: &Path| CachedParent::of(path).mount().unwrap();
            let on_one = id(&one.join("a"));
            assert_eq!(id(&one.join("inside/b")), on_one);
            assert_eq!(id(&other.join("link/c")), on_one);
            assert_ne!(id(&other.join("d")), on_one);
            // What is missing is looked up in the nearest directory that exists.
            assert_eq!(id(&one.join("missing/far/below")), on_one);
        });
    }
}
