//! Removing a name, where one that does not exist counts as removed.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, statat, unlinkat};
use rustix::io::Errno;

/// Removes a file, a link, or a device node, and returns whether it existed.
///
/// # Errors
/// The file system refused, and the name still exists as far as that can be seen.
pub fn remove_name(path: &Path) -> io::Result<bool> {
    Ok(remove_at(CWD, path, AtFlags::empty())?)
}

/// Removes an empty directory, and returns whether it existed.
///
/// # Errors
/// As [`remove_name`].
pub fn remove_directory(path: &Path) -> io::Result<bool> {
    Ok(remove_at(CWD, path, AtFlags::REMOVEDIR)?)
}

/// Removes a name below an open directory, as unlinkat(2) does with these flags.
///
/// A read-only file system answers `EROFS` before the kernel looks the name up, and an unreachable one whatever its
/// driver chooses; a name that does not exist is removed nevertheless.
pub(crate) fn remove_at(directory: impl AsFd, name: &Path, flags: AtFlags) -> Result<bool, Errno> {
    match unlinkat(directory.as_fd(), name, flags) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => match statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(false),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::mount::{MountFlags, mount_remount};

    use super::*;
    use crate::mount::Target;
    use crate::mount::testing::{in_own_namespace, tmpfs};

    #[test]
    fn a_missing_name_is_removed_on_a_read_only_file_system_and_an_existing_one_is_not() {
        in_own_namespace(|scratch| {
            let disk = scratch.join("disk");
            tmpfs(&disk);
            let name = |name: &str| disk.join(name);
            fs::write(name("file"), "").unwrap();
            fs::create_dir(name("directory")).unwrap();
            std::os::unix::fs::symlink(name("nowhere"), name("link")).unwrap();
            mount_remount(&disk, MountFlags::RDONLY, "").unwrap();
            assert!(!remove_name(&name("missing")).unwrap());
            assert!(!remove_directory(&name("missing")).unwrap());
            assert!(!remove_name(&name("missing/below")).unwrap());
            crate::durable::remove_file(&name("missing")).unwrap();
            Target::open(&name("missing"))
                .unwrap()
                .remove_directory()
                .unwrap();
            for existing in ["file", "link"] {
                let refused = remove_name(&name(existing)).unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
                crate::durable::remove_file(&name(existing)).unwrap_err();
            }
            remove_directory(&name("directory")).unwrap_err();
            Target::open(&name("directory"))
                .unwrap()
                .remove_directory()
                .unwrap_err();
            mount_remount(&disk, MountFlags::empty(), "").unwrap();
            assert!(remove_name(&name("file")).unwrap());
            assert!(remove_name(&name("link")).unwrap());
            assert!(remove_directory(&name("directory")).unwrap());
        });
    }
}
