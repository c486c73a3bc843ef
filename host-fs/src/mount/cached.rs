//! What the kernel knows of a path without asking any file system.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::Errno;

use super::table::MountTable;

/// `STATX_MNT_ID_UNIQUE` of Linux 6.8: an id that is never used again.
const UNIQUE_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Returns the id of the mount that a lookup of `path` has to wait for: the one that holds the nearest directory above
/// it that the kernel has in memory, symbolic links followed.
///
/// Never blocks: the kernel refuses what it would have to ask a file system for (`RESOLVE_CACHED`, Linux 5.12). On an older
/// kernel, and where a seccomp filter refuses openat2(2), the mount table is read, where symbolic links are not followed.
/// `None` where that cannot be read either.
pub fn mount_on_the_way(path: &Path) -> Option<u64> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::CACHED | ResolveFlags::NO_MAGICLINKS;
    for above in path.ancestors().skip(1) {
        match openat2(CWD, above, flags, Mode::empty(), resolve) {
            Ok(directory) => {
                let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
                let status = statx(directory, "", flags, StatxFlags::MNT_ID | UNIQUE_ID).ok()?;
                return Some(status.stx_mnt_id);
            }
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => return mount_by_table(path),
            // Not in memory, or not there: a directory above it is.
            Err(_) => {}
        }
    }
    None
}

/// Whether the kernel has all of a path in memory, or has there that it does not exist, so that a lookup asks no file
/// system. `false` where the kernel does not say: before Linux 5.12, and where a seccomp filter refuses openat2(2).
///
/// Never blocks.
pub fn is_in_memory(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::CACHED | ResolveFlags::NO_MAGICLINKS;
    match openat2(CWD, path, flags, Mode::empty(), resolve) {
        Err(Errno::AGAIN | Errno::NOSYS | Errno::PERM | Errno::INVAL) => false,
        // The answer of a lookup, also where that is an error.
        _ => true,
    }
}

/// Does what [`mount_on_the_way`] does on every Linux, for paths without symbolic links.
fn mount_by_table(path: &Path) -> Option<u64> {
    let table = MountTable::read().ok()?;
    table.holding(path.parent()?).map(|mount| mount.id)
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
            let id = |path: &Path| mount_on_the_way(path).unwrap();
            let on_one = id(&one.join("a"));
            assert_eq!(id(&one.join("inside/b")), on_one);
            assert_eq!(id(&other.join("link/c")), on_one);
            assert_ne!(id(&other.join("d")), on_one);
            // What is missing is looked up in the nearest directory that exists.
            assert_eq!(id(&one.join("missing/far/below")), on_one);
        });
    }

    #[test]
    fn a_path_is_in_memory_once_it_was_looked_up() {
        in_own_namespace(|scratch| {
            let path = scratch.join("one");
            tmpfs(&path);
            assert!(is_in_memory(&path));
            let missing = path.join("missing");
            assert!(!missing.exists());
            assert!(!missing.join("below").exists());
            assert!(!is_in_memory(&scratch.join("never/looked/up")));
        });
    }

    #[test]
    fn on_an_older_kernel_paths_below_different_mounts_wait_for_different_ones() {
        in_own_namespace(|scratch| {
            let (one, other) = (scratch.join("one"), scratch.join("other"));
            tmpfs(&one);
            tmpfs(&other);
            let id = |path: &Path| mount_by_table(path).unwrap();
            let on_one = id(&one.join("a"));
            assert_eq!(id(&one.join("missing/far/below")), on_one);
            assert_ne!(id(&other.join("a")), on_one);
            // What is mounted at the path itself is not on the way to it.
            assert_ne!(id(&one), on_one);
        });
    }
}
