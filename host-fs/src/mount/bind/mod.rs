//! Making a mount appear a second time elsewhere, complete at once.
//!
//! A plain bind followed by a read-only remount would be writable in between, and for good in every other mount
//! namespace it spreads to: flags that are changed later do not propagate. So the new mount is finished out of sight and
//! then moved to its target.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::attributes::AttributeChange;
use super::entry::Mount;
use super::kernel;
use super::lookup::layers_at;
use super::opened::{OpenError, open_mount};
use super::table::TableError;
use super::unmount::{Patience, unmount_top};
use super::workbench::{Workbench, WorkbenchError};

/// Why a mount was not made; none is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel refused a step.
    #[error("cannot {step} while mounting {} at {}", .from.display(), .target.display())]
    Step {
        /// What was tried.
        step: &'static str,
        /// What is bound.
        from: PathBuf,
        /// Where it should appear.
        target: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The mount to bind is not there any more.
    #[error("cannot mount anything at {}", .target.display())]
    Source {
        /// Where it should appear.
        target: PathBuf,
        /// What is there instead.
        #[source]
        source: OpenError,
    },
    /// The mount could not be prepared where nobody sees it.
    #[error("cannot prepare the mount for {}", .target.display())]
    Workbench {
        /// Where it should appear.
        target: PathBuf,
        /// What failed.
        #[source]
        source: WorkbenchError,
    },
    /// There is a mount at the target already.
    #[error("{} is in use by another mount: {found}", .target.display())]
    Occupied {
        /// Where ours should appear.
        target: PathBuf,
        /// What is there.
        found: Box<Mount>,
    },
    /// What is at the target afterwards is not what was asked for; it is taken away again if it is ours.
    #[error("after mounting {} at {}, there is {}", .from.display(), .target.display(), describe(.found.as_deref()))]
    Unverified {
        /// What is bound.
        from: PathBuf,
        /// Where it should appear.
        target: PathBuf,
        /// What is there.
        found: Option<Box<Mount>>,
    },
    /// The mount table could not be read.
    #[error("cannot check the mount at {}", .target.display())]
    Table {
        /// Where it should appear.
        target: PathBuf,
        /// What failed.
        #[source]
        source: TableError,
    },
}

fn describe(found: Option<&Mount>) -> String {
    found.map_or_else(
        || "no mount".to_owned(),
        |mount| format!("{mount} with flags {:?}", mount.attributes),
    )
}

/// Makes bind mounts in the best way the kernel offers.
#[derive(Debug, Clone)]
pub struct Binder {
    method: Method,
}

#[derive(Debug, Clone)]
enum Method {
    /// A detached copy of the mount gets its flags and is attached (Linux 5.12).
    Detached,
    /// The mount gets its flags on a private mount of ours and is moved from there.
    Moved(Workbench),
}

impl Binder {
    /// Chooses the way this kernel and its seccomp filter allow.
    ///
    /// The directory, in which nothing but this plugin works, is used only by kernels before 5.12.
    pub fn for_this_kernel(work_dir: &Path) -> Binder {
        if kernel::has_mount_setattr() {
            Binder::detached()
        } else {
            Binder::moved(work_dir)
        }
    }

    /// Uses the mount interface of Linux 5.12.
    pub fn detached() -> Binder {
        Binder {
            method: Method::Detached,
        }
    }

    /// Uses what every Linux has.
    pub fn moved(work_dir: &Path) -> Binder {
        Binder {
            method: Method::Moved(Workbench::new(work_dir)),
        }
    }

    /// Takes away what a process that was killed left unfinished, and tells how many mounts that were.
    ///
    /// Nothing unfinished is ever at a target. Call it before the first bind.
    pub fn clear_unfinished(&self) -> Result<usize, WorkbenchError> {
        match &self.method {
            Method::Detached => Ok(0),
            Method::Moved(workbench) => workbench.clear(),
        }
    }

    /// Makes the mount `source` appear at an existing directory with nothing mounted on it.
    ///
    /// `source` is the visible mount at its point; the result is the mount at the target, checked to be of the same
    /// file system, root and source name and to have the flags. The target must be free of symbolic links.
    pub fn bind(&self, source: &Mount, target: &Path, change: AttributeChange) -> Result<Mount, BindError> {
        let attempt = Attempt {
            source,
            target,
            change,
        };
        if let Some(found) = attempt.visible()? {
            return Err(BindError::Occupied {
                target: target.to_owned(),
                found: Box::new(found),
            });
        }
        let root = open_mount(source).map_err(|source| BindError::Source {
            target: target.to_owned(),
            source,
        })?;
        match &self.method {
            Method::Detached => attempt.attach_copy(&root)?,
            Method::Moved(workbench) => workbench
                .bind(&root, change.over(source.attributes), target)
                .map_err(|source| BindError::Workbench {
                    target: target.to_owned(),
                    source,
                })?,
        }
        attempt.verify()
    }
}

/// One bind on its way.
struct Attempt<'a> {
    source: &'a Mount,
    target: &'a Path,
    change: AttributeChange,
}

impl Attempt<'_> {
    fn attach_copy(&self, root: &OwnedFd) -> Result<(), BindError> {
        let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(root, "", copy | OpenTreeFlags::AT_EMPTY_PATH)
            .map_err(|error| self.failed("copy the mount", error))?;
        if !self.change.is_empty() {
            kernel::mount_setattr(tree.as_fd(), self.change.set, self.change.clear)
                .map_err(|error| self.failed("set the flags", error))?;
        }
        // Opened without following anything, so that nobody can swap a directory for a link after the check.
        let target = open_directory(self.target).map_err(|error| self.failed("open the target", error))?;
        let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", &target, "", empty).map_err(|error| self.failed("attach the mount", error))
        // The descriptor keeps the mount busy, so it must not outlive this function.
    }

    /// Compares what is at the target with what was meant; anything of ours that differs is taken away.
    fn verify(&self) -> Result<Mount, BindError> {
        let found = self.visible()?;
        let same = |mount: &Mount| {
            (mount.device, &mount.root, &mount.source)
                == (self.source.device, &self.source.root, &self.source.source)
        };
        match found {
            Some(mount) if same(&mount) && self.change.over(self.source.attributes) == mount.attributes => {
                Ok(mount)
            }
            found => {
                if found.as_ref().is_some_and(same) {
                    unmount_top(self.target, Patience::default())
                        .map_err(|error| self.failed("take the wrong mount away again", error))?;
                }
                Err(BindError::Unverified {
                    from: self.source.point.clone(),
                    target: self.target.to_owned(),
                    found: found.map(Box::new),
                })
            }
        }
    }

    fn visible(&self) -> Result<Option<Mount>, BindError> {
        let layers = layers_at(self.target);
        let mut layers = layers.map_err(|source| BindError::Table {
            target: self.target.to_owned(),
            source,
        })?;
        Ok(layers.pop())
    }

    fn failed(&self, step: &'static str, error: impl Into<io::Error>) -> BindError {
        BindError::Step {
            step,
            from: self.source.point.clone(),
            target: self.target.to_owned(),
            source: error.into(),
        }
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

#[cfg(test)]
mod tests;
