//! Whether other processes than the plugin would see a mount.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use host_fs::mount::Mount;
use host_fs::mount::holding;
use host_fs::mount::{MountTable, TableError};

/// The inode number of the initial PID namespace in every Linux (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Why a mount at a path would not be visible, or why that is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VisibilityError {
    /// The mount would be seen by the plugin alone.
    #[error(
        "a volume mounted at {} would be visible to the plugin alone, because {holder} is not shared with the host; \
         give the plugin that directory with bidirectional mount propagation (Kubernetes: mountPropagation: \
         Bidirectional; docker and podman: --volume DIR:DIR:rshared; systemd: no PrivateMounts=, ProtectSystem= or the \
         like; and on the host, if needed: mount --make-rshared {})", .path.display(), .holder.point.display()
    )]
    Hidden {
        /// Where the volume should be mounted.
        path: PathBuf,
        /// The mount that holds the path.
        holder: Box<Mount>,
    },
    /// No mount holds the path.
    #[error("no mount in the table holds {}", .0.display())]
    NoHolder(PathBuf),
    /// The mount table could not be read.
    #[error("cannot find the mount that holds {}", .path.display())]
    Table {
        /// Where the volume should be mounted.
        path: PathBuf,
        /// What failed.
        #[source]
        source: TableError,
    },
}

/// Which processes see the plugin's mounts; fixed for the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MountVisibility {
    /// The plugin runs in the mount namespace of the host, which sees all its mounts.
    Host,
    /// The plugin runs in a mount namespace of its own, or may do so.
    Apart,
}

impl MountVisibility {
    /// Detects where this process runs.
    ///
    /// In a pod, process 1 is the plugin itself, so the PID namespace must be the initial one, where it is the host's.
    /// `/proc/1/ns/mnt` may be unreadable; instead the root must be the same mount for process 1 and for this one,
    /// because every namespace has mounts of its own.
    pub(crate) fn of_this_process() -> MountVisibility {
        match roots() {
            Some((first, own)) if first.id == own.id => MountVisibility::Host,
            _ => MountVisibility::Apart,
        }
    }

    /// Checks that a mount made at a path would be visible outside of the plugin.
    ///
    /// The path need not exist but its parent must, and neither may contain a symbolic link.
    pub(crate) fn check(self, path: &Path) -> Result<(), VisibilityError> {
        if self == MountVisibility::Host {
            return Ok(());
        }
        let holder = holding(path.parent().unwrap_or(path));
        let holder = holder.map_err(|source| VisibilityError::Table {
            path: path.to_owned(),
            source,
        })?;
        match holder {
            Some(holder) if holder.shared() => Ok(()),
            Some(holder) => Err(VisibilityError::Hidden {
                path: path.to_owned(),
                holder: Box::new(holder),
            }),
            None => Err(VisibilityError::NoHolder(path.to_owned())),
        }
    }
}

/// Returns whether `/` is the host's root file system, in any mount namespace: in a container it is not.
pub(crate) fn on_root_of_host() -> bool {
    roots().is_some_and(|(first, own)| first.device == own.device && first.root == own.root)
}

/// Returns what is mounted at `/` for the first process of the host and for this thread, if both are known.
fn roots() -> Option<(Mount, Mount)> {
    let initial = std::fs::metadata("/proc/self/ns/pid").ok()?.ino() == INITIAL_PID_NAMESPACE;
    let root = |process| {
        MountTable::read_of(process)
            .ok()?
            .holding(Path::new("/"))
            .cloned()
    };
    initial.then_some((root("1")?, root("thread-self")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use host_fs::mount::testing::{in_own_namespace, share, tmpfs};

    #[test]
    fn a_target_on_a_private_mount_is_refused_with_the_remedy() {
        in_own_namespace(|scratch| {
            tmpfs(&scratch.join("volumes"));
            let error = MountVisibility::Apart
                .check(&scratch.join("volumes/target"))
                .unwrap_err();
            assert!(
                matches!(&error, VisibilityError::Hidden { holder, .. } if holder.point.ends_with("volumes"))
            );
            assert!(error.to_string().contains("Bidirectional"), "{error}");
        });
    }

    #[test]
    fn a_target_on_a_shared_mount_is_accepted() {
        in_own_namespace(|scratch| {
            tmpfs(&scratch.join("volumes"));
            share(&scratch.join("volumes"));
            MountVisibility::Apart
                .check(&scratch.join("volumes/target"))
                .unwrap();
        });
    }

    #[test]
    fn on_the_host_every_mount_counts() {
        in_own_namespace(|scratch| {
            tmpfs(&scratch.join("volumes"));
            MountVisibility::Host
                .check(&scratch.join("volumes/target"))
                .unwrap();
        });
    }

    #[test]
    fn a_namespace_of_its_own_is_not_the_host() {
        assert_eq!(
            in_own_namespace(|_| MountVisibility::of_this_process()),
            MountVisibility::Apart
        );
    }
}
