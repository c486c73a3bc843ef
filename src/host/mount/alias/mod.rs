//! The plugin's own mount of a volume, one level below the staging path.
//!
//! It shows the same file system as Flocker's mount, under a source name of its own where that lies on a block device.
//! Everything that is published is bound from it.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::device_nodes::{DeviceNodeError, DeviceNodes};
use super::origin::Origin;
use host_fs::mount::{
    AttributeChange, BindError, Binder, Device, Mount, MountTable, OpenError, Patience, TableError, Target,
    TargetError, UnmountError, file_system_id, open_mount, unmount_owned,
};

/// Why the plugin's own mount could not be made; no part of it remains then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AliasError {
    /// The file system is read-only, and mounting it again would fail or hide that.
    #[error("{0} has become read-only, usually after an I/O error; repair the file system first")]
    ReadOnly(Box<Mount>),
    /// Flocker's mount shows only a part of the device, which mounting the device could not reproduce.
    #[error("{0} shows the directory {root} of its device, not the whole of it", root = .0.root.display())]
    Partial(Box<Mount>),
    /// There is no device node to mount from.
    #[error("cannot name the device of dataset {dataset_id}")]
    DeviceNode {
        /// The dataset.
        dataset_id: Uuid,
        /// What failed.
        #[source]
        source: DeviceNodeError,
    },
    /// The mount point cannot be used or created.
    #[error("cannot use the mount point of dataset {dataset_id}")]
    Target {
        /// The dataset.
        dataset_id: Uuid,
        /// What is wrong with it.
        #[source]
        source: TargetError,
    },
    /// Flocker's mount could not be opened.
    #[error("cannot open the mount of dataset {dataset_id}")]
    Open {
        /// The dataset.
        dataset_id: Uuid,
        /// What exists instead.
        #[source]
        source: OpenError,
    },
    /// Something else is mounted at the mount point.
    #[error("{} is in use by another mount: {found}", .path.display())]
    Occupied {
        /// The mount point.
        path: PathBuf,
        /// The mount there.
        found: Box<Mount>,
    },
    /// A mount of the plugin exists that is not the volume as Flocker has it now.
    #[error(
        "{found} has this plugin's name, but Flocker has the volume on device {expected}, for reading and writing"
    )]
    Stale {
        /// The mount there.
        found: Box<Mount>,
        /// The device of Flocker's mount.
        expected: Device,
    },
    /// The kernel refused the mount.
    #[error("cannot mount {} ({fs_type} on device {device}) at {}", .node.display(), .path.display())]
    Mount {
        /// The device node.
        node: PathBuf,
        /// The file system type.
        fs_type: String,
        /// The device.
        device: Device,
        /// The mount point.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// Flocker's mount could not be bound.
    #[error("cannot bind the mount of dataset {dataset_id}")]
    Bind {
        /// The dataset.
        dataset_id: Uuid,
        /// What failed.
        #[source]
        source: Box<BindError>,
    },
    /// What is mounted afterwards is not the volume.
    #[error("after mounting device {device} at {}, there is {found}", .path.display())]
    Unverified {
        /// The device that was mounted.
        device: Device,
        /// The mount point.
        path: PathBuf,
        /// The mount at the mount point, in words.
        found: String,
    },
    /// The mount table could not be read.
    #[error("cannot check the mount at {}", .path.display())]
    Table {
        /// The mount point.
        path: PathBuf,
        /// What failed.
        #[source]
        source: TableError,
    },
}

/// Returns where the plugin mounts a dataset for a staging path.
pub(crate) fn alias_path(staging: &Path, dataset_id: Uuid) -> PathBuf {
    staging.join(dataset_id.to_string())
}

/// Makes and removes the plugin's own mounts.
#[derive(Debug, Clone)]
pub(crate) struct Aliases {
    nodes: DeviceNodes,
    binder: Binder,
}

impl Aliases {
    /// Uses these device nodes, and this binder where there is no block device.
    pub(crate) fn new(nodes: DeviceNodes, binder: Binder) -> Aliases {
        Aliases { nodes, binder }
    }

    /// Returns the device nodes in use.
    pub(crate) fn nodes(&self) -> &DeviceNodes {
        &self.nodes
    }

    /// Returns where the plugin's mounts of a volume come from, given Flocker's mount of it.
    pub(crate) fn origin(&self, dataset_id: Uuid, flocker: &Mount) -> Origin {
        Origin::of(flocker, &self.nodes.path(dataset_id), file_system_id)
    }

    /// Mounts a dataset for a staging path, which must exist and be free of symbolic links.
    ///
    /// A healthy mount that is `owned` and exists already is returned as it is; a new one takes the origin that
    /// [`Self::origin`] returns. One caller at a time may change the same dataset.
    pub(crate) fn mount(
        &self,
        dataset_id: Uuid,
        origin: &Origin,
        flocker: &Mount,
        staging: &Path,
        owned: impl Fn(&Mount) -> bool,
    ) -> Result<Mount, AliasError> {
        if flocker.file_system_read_only() {
            return Err(AliasError::ReadOnly(Box::new(flocker.clone())));
        }
        let unusable = |source| AliasError::Target { dataset_id, source };
        let target = Target::open_resolved(&alias_path(staging, dataset_id)).map_err(unusable)?;
        if let Some(found) = target.visible().map_err(|source| unreadable(&target, source))? {
            return if !owned(&found) {
                Err(AliasError::Occupied {
                    path: target.path().to_owned(),
                    found: Box::new(found),
                })
            } else if found.device != flocker.device || found.read_only() {
                Err(AliasError::Stale {
                    found: Box::new(found),
                    expected: flocker.device,
                })
            } else {
                Ok(found)
            };
        }
        // A directory that an interrupted attempt left is reused, unless something was written to it since.
        let made = target.ensure_directory().map_err(unusable)?;
        if !made {
            target.refuse_content().map_err(unusable)?;
        }
        let mounted = match origin {
            Origin::Alias { node, .. } => self.mount_device(dataset_id, flocker, node, &target),
            Origin::Bind { .. } => self.bind(dataset_id, flocker, &target),
        };
        if mounted.is_err() && made {
            warn_of_failure(&target, target.remove_directory());
        }
        mounted
    }

    /// Unmounts the mounts of a dataset that are `owned` from a staging path, and returns how many there were.
    ///
    /// The directory stays, because removing it may fail. The device node stays, because the dataset may be mounted for
    /// another staging path too. An alias that is not mounted counts as unmounted.
    pub(crate) fn unmount(
        dataset_id: Uuid,
        staging: &Path,
        owned: impl Fn(&Mount) -> bool,
        patience: Patience,
    ) -> Result<usize, UnmountError> {
        let path = alias_path(staging, dataset_id);
        let target = match Target::open_resolved(&path) {
            Ok(target) => target,
            Err(error) => return refuse_mounted(path, owned, error),
        };
        unmount_owned(&target, owned, patience)
    }

    /// Removes the device node of a dataset that this process no longer mounts. It is in another directory where the
    /// dataset was staged with another device directory.
    pub(crate) fn forget_device(&self, dataset_id: Uuid, node: &Path) -> Result<(), DeviceNodeError> {
        self.nodes.remove(dataset_id, node)
    }

    fn bind(&self, dataset_id: Uuid, flocker: &Mount, target: &Target) -> Result<Mount, AliasError> {
        let source = open_mount(flocker).map_err(|source| AliasError::Open { dataset_id, source })?;
        self.binder
            .bind(&source, target, AttributeChange::default())
            .map_err(|source| AliasError::Bind {
                dataset_id,
                source: Box::new(source),
            })
    }

    fn mount_device(
        &self,
        dataset_id: Uuid,
        flocker: &Mount,
        node: &Path,
        target: &Target,
    ) -> Result<Mount, AliasError> {
        if flocker.root != Path::new("/") {
            return Err(AliasError::Partial(Box::new(flocker.clone())));
        }
        let device = flocker.device;
        self.nodes
            .make(dataset_id, device)
            .map_err(|source| AliasError::DeviceNode { dataset_id, source })?;
        target
            .mount(node, &flocker.fs_type)
            .map_err(|source| AliasError::Mount {
                node: node.to_owned(),
                fs_type: flocker.fs_type.clone(),
                device,
                path: target.path().to_owned(),
                source,
            })?;
        let verified = verify(flocker, node, target);
        if verified.is_err() {
            // What was just mounted from the node, whatever device that had the number of by then.
            let made = |mount: &Mount| mount.device.is_block() && Path::new(&mount.source) == node;
            warn_of_failure(target, unmount_owned(target, made, Patience::default()));
        }
        verified
    }
}

fn verify(flocker: &Mount, node: &Path, target: &Target) -> Result<Mount, AliasError> {
    let unverified = |found: String| AliasError::Unverified {
        device: flocker.device,
        path: target.path().to_owned(),
        found,
    };
    let mount = target
        .visible_now()
        .map_err(|source| unreadable(target, source))?;
    let mount = mount.ok_or_else(|| unverified("no mount".to_owned()))?;
    // A directory on the way may have been moved since the target was opened, and the mount with it.
    if Path::new(&mount.source) != node
        || mount.point != target.path()
        || (mount.device, &mount.root, mount.read_only()) != (flocker.device, &flocker.root, false)
    {
        return Err(unverified(mount.to_string()));
    }
    Ok(mount)
}

/// Checks a path that is no directory, or cannot be reached: an error unless nothing is mounted there.
fn refuse_mounted(
    path: PathBuf,
    owned: impl Fn(&Mount) -> bool,
    error: TargetError,
) -> Result<usize, UnmountError> {
    let table = match MountTable::read() {
        Ok(table) => table,
        Err(source) => return Err(UnmountError::Table { path, source }),
    };
    match table.layers_at(&path).pop() {
        // The volume may be mounted where the directory is now.
        None if matches!(error, TargetError::LinkOnTheWay(_)) => {
            Err(UnmountError::Unreachable { path, source: error })
        }
        None => Ok(0),
        Some(found) if owned(found) => Err(UnmountError::Unreachable { path, source: error }),
        Some(found) => Err(UnmountError::Foreign {
            path,
            found: Box::new(found.clone()),
        }),
    }
}

fn unreadable(target: &Target, source: TableError) -> AliasError {
    AliasError::Table {
        path: target.path().to_owned(),
        source,
    }
}

/// Logs an undo step that failed; the caller returns the error that made it necessary.
fn warn_of_failure<T, E: std::error::Error>(target: &Target, undone: Result<T, E>) {
    if let Err(error) = undone {
        tracing::warn!(path = %target.path().display(), %error, "Cannot undo a failed mount");
    }
}

#[cfg(test)]
mod tests;
