//! Directories that other users may change.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

const WRITABLE_BY_EVERY_USER: u32 = 0o002;
/// In such a directory, users can remove and rename only what is theirs.
const STICKY: u32 = 0o1000;

/// Another user can replace what a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// The directory, or one above it.
    pub path: PathBuf,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Owner(u32),
    Writable(u32),
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.kind {
            Kind::Owner(user) => write!(
                f,
                "{path} belongs to the user with the id {user} (chown it to {})",
                geteuid()
            ),
            Kind::Writable(mode) => write!(
                f,
                "every user may write to {path}, which has mode {mode:04o} (chmod o-w)"
            ),
        }
    }
}

/// Returns who else could replace what is in a directory: through it, or through one above it.
///
/// Above it, a directory in which every user may write but may rename only their own entries, such as `/tmp`, is safe.
///
/// # Errors
/// The directory does not exist, or cannot be examined.
pub fn exposure(directory: &Path) -> io::Result<Option<Exposure>> {
    let us = geteuid().as_raw();
    let directory = directory.canonicalize()?;
    for path in directory.ancestors() {
        let found = fs::metadata(path)?;
        let mode = found.permissions().mode() & 0o7777;
        let is_safe = path != directory && mode & STICKY != 0;
        let kind = if found.uid() != 0 && found.uid() != us {
            Kind::Owner(found.uid())
        } else if mode & WRITABLE_BY_EVERY_USER != 0 && !is_safe {
            Kind::Writable(mode)
        } else {
            continue;
        };
        let path = path.to_owned();
        return Ok(Some(Exposure { path, kind }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_is_exposed_by_its_mode_its_owner_and_those_above_it() {
        let root = tempfile::tempdir().unwrap();
        let above = root.path().canonicalize().unwrap().join("above");
        let directory = above.join("state");
        fs::create_dir_all(&directory).unwrap();
        let exposed = || exposure(&directory).unwrap().map(|exposure| exposure.to_string());
        assert_eq!(exposed(), None, "root may be in /tmp");

        set_mode(&directory, 0o1777);
        assert!(
            exposed().unwrap().contains("mode 1777"),
            "records can be added to it"
        );
        set_mode(&directory, 0o750);
        set_mode(&above, 0o777);
        let text = exposed().unwrap();
        assert!(text.contains("above, which has mode 0777"), "{text}");
        set_mode(&above, 0o1777);
        assert_eq!(exposed(), None);

        chown(&directory, Some(65_534), None).unwrap();
        let text = exposed().unwrap();
        assert!(
            text.contains("state belongs to the user with the id 65534"),
            "{text}"
        );
    }
}
