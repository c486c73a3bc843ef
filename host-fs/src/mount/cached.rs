//! What the kernel knows of a path without asking any file system.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::Errno;

use super::statmount;
use super::table::MountTable;

/// `STATX_MNT_ID_UNIQUE` of Linux 6.8: an id that is never used again.
const UNIQUE_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The file systems that this kernel reads by itself, from its own devices or from memory.
const LOCAL: [&str; 12] = [
    "bcachefs", "btrfs", "devtmpfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "ramfs", "tmpfs", "xfs", "zfs",
];

/// How often the kernel is asked. It has the same answer (`EAGAIN`) for what is not in memory and for a lookup that any
/// process has disturbed by a mount or a rename, anywhere on the machine.
const ATTEMPTS: usize = 5;

/// What the kernel has in memory of the way to a path.
#[derive(Debug)]
pub struct CachedParent {
    mount: Option<u64>,
    /// Whether the directory right above the path is in memory.
    is_known: bool,
    /// That directory, if no symbolic link leads to it.
    directory: Option<OwnedFd>,
}

impl CachedParent {
    /// Looks for the directory above a path, symbolic links followed, without asking any file system.
    ///
    /// Never blocks: the kernel refuses what it would have to ask a file system for (`RESOLVE_CACHED`, Linux 5.12). On an
    /// older kernel, and where a seccomp filter refuses openat2(2), the mount table is read, where symbolic links are not
    /// followed.
    pub fn of(path: &Path) -> CachedParent {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for (distance, above) in path.ancestors().skip(1).enumerate() {
            let open = |resolve| open_cached(above, flags, resolve);
            let mut has_links = false;
            let mut opened = open(ResolveFlags::NO_SYMLINKS);
            if matches!(opened, Err(Errno::LOOP)) {
                has_links = true;
                opened = open(ResolveFlags::NO_MAGICLINKS);
            }
            match opened {
                Ok(directory) => {
                    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
                    let status = statx(&directory, "", flags, StatxFlags::MNT_ID | UNIQUE_ID);
                    return CachedParent {
                        mount: status.ok().map(|status| status.stx_mnt_id),
                        is_known: distance == 0,
                        // Whether a link may be followed is decided when the path is resolved.
                        directory: (distance == 0 && !has_links).then_some(directory),
                    };
                }
                Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
                    return CachedParent {
                        mount: mount_by_table(path),
                        is_known: false,
                        directory: None,
                    };
                }
                // Not in memory, or it does not exist: a directory above it does.
                Err(_) => {}
            }
        }
        CachedParent {
            mount: None,
            is_known: false,
            directory: None,
        }
    }

    /// Returns one behind this mount, of which nothing else is known.
    #[cfg(any(test, feature = "testing"))]
    pub fn behind(mount: u64) -> CachedParent {
        CachedParent {
            mount: Some(mount),
            is_known: false,
            directory: None,
        }
    }

    /// Returns the id of the mount that a lookup of the path has to wait for: the one that holds the nearest directory
    /// above it that the kernel has in memory. `None` where the kernel does not say.
    pub fn mount(&self) -> Option<u64> {
        self.mount
    }

    /// Whether a lookup of the path asks no other machine and no other program: the directory above it is in memory, and a
    /// file system of this kernel holds it. `false` where the kernel does not say (before Linux 6.13).
    pub fn is_local(&self) -> bool {
        let described = || self.mount.and_then(statmount::describe);
        self.is_known && described().is_some_and(|found| LOCAL.contains(&found.mount.fs_type.as_str()))
    }

    /// Returns the directory right above the path, if the kernel had that in memory and no symbolic link leads to it.
    pub(super) fn into_directory(self) -> Option<OwnedFd> {
        self.directory
    }
}

/// Whether the kernel has all of a path in memory, or has there that it does not exist, so that a lookup asks no file
/// system. `false` where the kernel does not say: before Linux 5.12, and where a seccomp filter refuses openat2(2).
///
/// Never blocks.
pub fn is_in_memory(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match open_cached(path, flags, ResolveFlags::NO_MAGICLINKS) {
        Err(Errno::AGAIN | Errno::NOSYS | Errno::PERM | Errno::INVAL) => false,
        // The answer of a lookup, also where that is an error.
        _ => true,
    }
}

/// Opens a path that the kernel has in memory.
fn open_cached(path: &Path, flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let open = || openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED | resolve);
    let disturbed = |opened: &rustix::io::Result<OwnedFd>| matches!(opened, Err(Errno::AGAIN));
    let mut opened = open();
    for _ in 1..ATTEMPTS {
        if !disturbed(&opened) {
            break;
        }
        opened = open();
    }
    opened
}

/// Does what [`CachedParent::of`] does on every Linux, for paths without symbolic links.
fn mount_by_table(path: &Path) -> Option<u64> {
    let table = MountTable::read().ok()?;
    table.holding(path.parent()?).map(|mount| mount.id)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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

    #[test]
    fn a_lookup_that_mounts_of_others_disturb_is_tried_again() {
        in_own_namespace(|scratch| {
            let (one, other) = (scratch.join("one"), scratch.join("other"));
            tmpfs(&one);
            std::fs::create_dir(&other).unwrap();
            let path = one.join("a");
            let expected = CachedParent::of(&path).mount();
            let (ended, disturbing) = (AtomicBool::new(false), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !ended.load(Ordering::Relaxed) {
                        tmpfs(&other);
                        super::super::testing::unmount(&other);
                        disturbing.fetch_add(1, Ordering::Relaxed);
                    }
                });
                let mut fallen_back = 0;
                let mut looked = 0;
                while looked < 50_000 || disturbing.load(Ordering::Relaxed) < 100 {
                    looked += 1;
                    fallen_back += usize::from(CachedParent::of(&path).mount() != expected);
                }
                ended.store(true, Ordering::Relaxed);
                // Without a repetition it is one in fifty.
                assert!(fallen_back * 1000 < looked, "{fallen_back} of {looked}");
            });
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
            // A lookup in a file system of this kernel asks nothing that could hang but its own device.
            // What is in memory cannot be had at a moment when another process renames something.
            let mut reads = std::iter::repeat_with(|| CachedParent::of(&missing).is_local());
            assert!(reads.by_ref().take(1000).any(|is_local| is_local));
            assert!(!CachedParent::of(Path::new("/proc/1/missing")).is_local());
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
