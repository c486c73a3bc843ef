//! Making a mount appear a second time elsewhere, complete at once.
//!
//! A plain bind followed by a read-only remount would be writable in between, and for good in every other mount
//! namespace it spreads to: flags that are changed later do not propagate. So the new mount is finished out of sight and
//! then moved to its target.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use super::attributes::AttributeChange;
use super::entry::Mount;
use super::handle::MountHandle;
use super::kernel;
use super::lookup::Visible;
use super::scratch::{ScratchError, ScratchMounts};
use super::statmount;
use super::table::TableError;
use super::target::Target;
use super::unmount::{Patience, unmount_top};

/// Why a mount was not made; none is left behind then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// The mount could not be prepared out of sight.
    #[error("cannot prepare the mount for {}", .target.display())]
    Scratch {
        /// Where it should appear.
        target: PathBuf,
        /// What failed.
        #[source]
        source: ScratchError,
    },
    /// A mount exists at the target already.
    #[error("{} is in use by another mount: {found}", .target.display())]
    Occupied {
        /// The target.
        target: PathBuf,
        /// The mount at the target.
        found: Box<Mount>,
    },
    /// The mount at the target afterwards is not the requested one; it is unmounted if this bind made it.
    #[error("after mounting {} at {}, there is {}", .from.display(), .target.display(), describe(.found.as_deref()))]
    Unverified {
        /// What is bound.
        from: PathBuf,
        /// Where it should appear.
        target: PathBuf,
        /// The mount at the target.
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
    /// The mount gets its flags on a private mount and is moved from there.
    Moved(ScratchMounts),
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
            method: Method::Moved(ScratchMounts::new(work_dir)),
        }
    }

    /// Unmounts what a process that was killed left unfinished, and returns how many mounts that were.
    ///
    /// Nothing unfinished is ever at a target. Call it before the first bind.
    ///
    /// # Errors
    /// The mount table cannot be read, or the kernel refuses.
    pub fn clear_unfinished(&self) -> Result<usize, ScratchError> {
        match &self.method {
            Method::Detached => Ok(0),
            Method::Moved(scratch) => scratch.clear(),
        }
    }

    /// Makes the mount `source` appear at an existing directory with nothing mounted on it.
    ///
    /// The result is the mount at the target, checked to be of the same file system, root and source name, to have the
    /// flags, and to lie on no mount that appeared at the target since that was opened.
    ///
    /// # Errors
    /// [`BindError::Occupied`] when something is mounted at the target, [`BindError::Unverified`] when something else
    /// than requested is mounted there afterwards; otherwise the step that the kernel refused. No mount is left behind.
    pub fn bind(
        &self,
        source: &MountHandle,
        target: &Target,
        change: AttributeChange,
    ) -> Result<Mount, BindError> {
        let binding = Binding {
            source,
            target,
            change,
        };
        if let Some(found) = target.visible().map_err(|error| binding.unreadable(error))? {
            return Err(binding.occupied(found));
        }
        let attached = match &self.method {
            Method::Detached => Some(binding.attach_copy()?),
            Method::Moved(scratch) => {
                scratch
                    .bind(source.as_fd(), binding.wanted(), target)
                    .map_err(|source| BindError::Scratch {
                        target: target.path().to_owned(),
                        source,
                    })?;
                None
            }
        };
        binding.verify(attached)
    }
}

/// A bind that is under way.
struct Binding<'a> {
    source: &'a MountHandle,
    target: &'a Target,
    change: AttributeChange,
}

impl Binding<'_> {
    /// Returns the attributes that the new mount must have.
    fn wanted(&self) -> MountAttrFlags {
        self.change.over(self.source.mount().attributes)
    }

    fn attach_copy(&self) -> Result<OwnedFd, BindError> {
        let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(self.source, "", copy | OpenTreeFlags::AT_EMPTY_PATH)
            .map_err(|error| self.step_error("copy the mount", error))?;
        if !self.change.is_empty() {
            kernel::mount_setattr(tree.as_fd(), self.change.set, self.change.clear)
                .map_err(|error| self.step_error("set the flags", error))?;
        }
        self.target
            .attach(tree.as_fd())
            .map_err(|error| self.step_error("attach the mount", error))?;
        Ok(tree)
    }

    /// Compares what is at the target with what was asked for; anything of ours that differs is unmounted.
    /// What was attached is given by its root, which keeps it busy.
    fn verify(&self, attached: Option<OwnedFd>) -> Result<Mount, BindError> {
        let found = self.target.top_now().map_err(|error| self.unreadable(error))?;
        let source = self.source.mount();
        let is_at_target = found
            .as_ref()
            .is_some_and(|found| found.mount.point == self.target.path());
        if let Some(attached) = attached.filter(|_| !is_at_target) {
            // What is at the target is compared below; this unmounts what is at another name.
            if let Err(error) = self.target.settle(attached) {
                tracing::warn!(path = %self.target.path().display(), %error, "A mount is not where it was to be made");
            }
        }
        let Some(found) = found else {
            return Err(self.unverified(None));
        };
        let mount = &found.mount;
        if (mount.device, &mount.root, &mount.source) != (source.device, &source.root, &source.source) {
            return Err(self.unverified(Some(found.mount)));
        }
        let covered = self.covered(&found);
        // A directory on the way may have been moved since the target was opened, and the mount with it.
        let is_there = mount.point == self.target.path();
        if covered.is_none() && is_there && self.wanted() == mount.attributes {
            return Ok(found.mount);
        }
        unmount_top(&self.target.path_by_descriptor(), Patience::default())
            .map_err(|error| self.step_error("unmount the wrong mount", error))?;
        Err(match covered {
            Some(covered) => self.occupied(covered),
            None => self.unverified(Some(found.mount)),
        })
    }

    /// Returns the mount at the target that the new one lies on, which appeared after the target was opened.
    fn covered(&self, found: &Visible) -> Option<Mount> {
        let below = found.unique?.parent;
        (self.target.holder()? != below)
            .then(|| statmount::describe(below))
            .flatten()
            .map(|below| below.mount)
    }

    fn occupied(&self, found: Mount) -> BindError {
        BindError::Occupied {
            target: self.target.path().to_owned(),
            found: Box::new(found),
        }
    }

    fn unverified(&self, found: Option<Mount>) -> BindError {
        BindError::Unverified {
            from: self.source.mount().point.clone(),
            target: self.target.path().to_owned(),
            found: found.map(Box::new),
        }
    }

    fn unreadable(&self, source: TableError) -> BindError {
        BindError::Table {
            target: self.target.path().to_owned(),
            source,
        }
    }

    fn step_error(&self, step: &'static str, error: impl Into<io::Error>) -> BindError {
        BindError::Step {
            step,
            from: self.source.mount().point.clone(),
            target: self.target.path().to_owned(),
            source: error.into(),
        }
    }
}

#[cfg(test)]
mod tests;
