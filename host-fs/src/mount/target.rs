//! Paths an orchestrator names: where it wants a volume to appear.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

/// The longest path a system call takes, without the final NUL (`PATH_MAX`).
const MAX_PATH: usize = 4095;

/// The longest name in a directory (`NAME_MAX`).
const MAX_NAME: usize = 255;

/// Why a path cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The path can be no mount point, whatever is on the disk.
    #[error("path {path:?} {reason}")]
    Invalid {
        /// The path as it came, cut if it is long.
        path: String,
        /// What is wrong with it, as the end of a sentence.
        reason: &'static str,
    },
    /// A directory above the path does not exist.
    #[error("the directory {} does not exist; the orchestrator must make it before the volume is mounted in it", .0.display())]
    NoParent(PathBuf),
    /// Something above the path is no directory.
    #[error("{} is not a directory, so there can be no mount point below it", .0.display())]
    ParentNotDirectory(PathBuf),
    /// The path itself is a symbolic link: mounting would happen somewhere else.
    #[error("{} is a symbolic link; the path of a mount must be the directory itself", .0.display())]
    SymbolicLink(PathBuf),
    /// The path itself is something else than a directory.
    #[error("{} exists and is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// The directory is not empty, so it is not removed.
    #[error("the directory {} is not empty after the unmount, so it is left alone; look at what is in it", .0.display())]
    NotEmpty(PathBuf),
    /// The file system refused to tell, to make or to remove.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
}

impl TargetError {
    /// Tells whether nothing can be mounted at the path because the way to it does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, TargetError::NoParent(_))
    }
}

/// An absolute path without `..`, as a request spells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetPath(PathBuf);

impl TargetPath {
    /// Checks the spelling of a path; repeated and trailing slashes and `.` are dropped.
    pub fn parse(path: &str) -> Result<TargetPath, TargetError> {
        let refuse = |reason| {
            Err(TargetError::Invalid {
                path: path.chars().take(200).collect(),
                reason,
            })
        };
        if path.is_empty() {
            return refuse("is empty");
        }
        if path.contains('\0') {
            return refuse("contains a NUL character");
        }
        if path.len() > MAX_PATH {
            return refuse("is longer than the 4095 bytes the kernel takes");
        }
        if !path.starts_with('/') {
            return refuse("is not absolute");
        }
        let mut clean = PathBuf::from("/");
        for component in Path::new(path).components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) if name.len() > MAX_NAME => {
                    return refuse("has a component longer than the 255 bytes a file system takes");
                }
                Component::Normal(name) => clean.push(name),
                Component::ParentDir => return refuse("contains \"..\""),
                Component::Prefix(_) => return refuse("is not a path of this system"),
            }
        }
        if clean.parent().is_none() {
            return refuse("is the root directory");
        }
        Ok(TargetPath(clean))
    }

    /// Returns the path as spelled, without its redundant parts.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Follows symbolic links in the directories above, so that the path compares with the mount table.
    pub fn resolve(&self) -> Result<Target, TargetError> {
        let (Some(parent), Some(name)) = (self.0.parent(), self.0.file_name()) else {
            return Err(TargetError::NoParent(self.0.clone()));
        };
        let parent = parent.canonicalize().map_err(|source| match source.kind() {
            ErrorKind::NotFound => TargetError::NoParent(parent.to_owned()),
            ErrorKind::NotADirectory => TargetError::ParentNotDirectory(parent.to_owned()),
            _ => TargetError::Io {
                action: "look up",
                path: parent.to_owned(),
                source,
            },
        })?;
        let path = parent.join(name);
        match file_type(&path) {
            Ok(found) => check_directory(&path, found).map(|()| Target { path, exists: true }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Target { path, exists: false }),
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                Err(TargetError::ParentNotDirectory(parent))
            }
            Err(source) => Err(TargetError::Io {
                action: "look at",
                path,
                source,
            }),
        }
    }
}

/// Tells what is at a path, without asking the server of a file system that is mounted there: it may be dead.
fn file_type(path: &Path) -> io::Result<FileType> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let found = statx(CWD, path, flags, StatxFlags::TYPE)?;
    Ok(FileType::from_raw_mode(found.stx_mode.into()))
}

fn check_directory(path: &Path, found: FileType) -> Result<(), TargetError> {
    match found {
        FileType::Directory => Ok(()),
        FileType::Symlink => Err(TargetError::SymbolicLink(path.to_owned())),
        _ => Err(TargetError::NotDirectory(path.to_owned())),
    }
}

/// A path spelled as the mount table spells it: no symbolic link in it, and either a directory or nothing there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    path: PathBuf,
    exists: bool,
}

impl Target {
    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether the directory was there when the path was resolved.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// Makes the directory where it is missing, for root and its group only: the mount will cover it.
    ///
    /// Answers whether it was made.
    pub fn make_directory(&self) -> Result<bool, TargetError> {
        match DirBuilder::new().mode(0o750).create(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let found = file_type(&self.path).map_err(|source| self.failed("look at", source))?;
                check_directory(&self.path, found).map(|()| false)
            }
            Err(source) => Err(self.failed("make the directory", source)),
        }
    }

    /// Checks that there is nothing in the directory, where it is not ours to remove; it may have gone.
    pub fn check_empty(&self) -> Result<(), TargetError> {
        match std::fs::read_dir(&self.path).map(|mut entries| entries.next().transpose()) {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(_))) => Err(TargetError::NotEmpty(self.path.clone())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Ok(Err(source)) | Err(source) => Err(self.failed("look into", source)),
        }
    }

    /// Removes the directory if it is there, never anything in it.
    pub fn remove_directory(&self) -> Result<(), TargetError> {
        match std::fs::remove_dir(&self.path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                Err(TargetError::NotEmpty(self.path.clone()))
            }
            Err(source) => Err(self.failed("remove the directory", source)),
        }
    }

    /// Returns a name below this directory; nothing is checked on the disk.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> TargetError {
        TargetError::Io {
            action,
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    fn target(path: &Path) -> Result<Target, TargetError> {
        TargetPath::parse(path.to_str().unwrap())?.resolve()
    }

    #[test]
    fn redundant_slashes_and_dots_are_dropped() {
        assert_eq!(
            TargetPath::parse("//var/./lib//x/").unwrap().as_path(),
            Path::new("/var/lib/x")
        );
    }

    #[test]
    fn a_path_that_can_be_no_mount_point_is_refused_with_its_reason() {
        let long = format!("/{}", "a/".repeat(2048));
        let name = format!("/{}", "a".repeat(256));
        for (path, reason) in [
            ("", "is empty"),
            ("relative/path", "is not absolute"),
            ("/a/../b", "contains \"..\""),
            ("/a\0b", "NUL"),
            ("/", "is the root directory"),
            ("/./", "is the root directory"),
            (long.as_str(), "4095"),
            (name.as_str(), "255"),
        ] {
            let error = TargetPath::parse(path).unwrap_err();
            assert!(error.to_string().contains(reason), "{path:?}: {error}");
        }
    }

    #[test]
    fn links_above_the_target_are_followed_and_the_target_itself_may_be_none() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        symlink(&real, root.path().join("link")).unwrap();
        symlink(&real, real.join("leaf")).unwrap();
        let found = target(&root.path().join("link/new")).unwrap();
        assert_eq!(
            (found.path(), found.exists()),
            (real.join("new").as_path(), false)
        );
        let error = target(&root.path().join("link/leaf")).unwrap_err();
        assert!(matches!(error, TargetError::SymbolicLink(path) if path == real.join("leaf")));
    }

    #[test]
    fn files_in_the_way_are_told_apart_from_missing_directories() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().canonicalize().unwrap().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(target(&file), Err(TargetError::NotDirectory(_))));
        assert!(matches!(
            target(&file.join("below")),
            Err(TargetError::ParentNotDirectory(_))
        ));
        assert!(matches!(
            target(&file.join("far/below")),
            Err(TargetError::ParentNotDirectory(_))
        ));
        let missing = target(&root.path().join("missing/below")).unwrap_err();
        assert!(missing.is_missing(), "{missing}");
    }

    #[test]
    fn a_directory_is_made_once_and_removed_only_when_empty() {
        let root = tempfile::tempdir().unwrap();
        let target = target(&root.path().join("target")).unwrap();
        assert!(target.make_directory().unwrap());
        assert!(!target.make_directory().unwrap());
        std::fs::write(target.join("data"), "precious").unwrap();
        assert!(matches!(target.remove_directory(), Err(TargetError::NotEmpty(_))));
        std::fs::remove_file(target.join("data")).unwrap();
        target.remove_directory().unwrap();
        target.remove_directory().unwrap();
        assert!(!target.path().exists());
    }

    #[test]
    fn a_directory_that_is_not_ours_to_remove_is_only_looked_into() {
        let root = tempfile::tempdir().unwrap();
        let target = target(&root.path().join("target")).unwrap();
        target.check_empty().unwrap();
        std::fs::create_dir(target.path()).unwrap();
        target.check_empty().unwrap();
        std::fs::write(target.join("data"), "precious").unwrap();
        assert!(matches!(target.check_empty(), Err(TargetError::NotEmpty(_))));
        assert!(target.join("data").exists());
    }

    proptest! {
        #[test]
        fn an_accepted_path_is_absolute_and_stays_inside_the_kernel_limits(path in "[/.a\0-]{0,40}") {
            if let Ok(target) = TargetPath::parse(&path) {
                prop_assert!(target.as_path().is_absolute());
                prop_assert!(target.as_path().components().all(|part| part != Component::ParentDir));
                prop_assert_eq!(TargetPath::parse(target.as_path().to_str().unwrap()).unwrap(), target);
            }
        }
    }
}
