//! The plugin's own mount of a volume, one level below the staging path.
//!
//! It shows the same file system as Flocker's mount, under a source name of our own wherever that lies on a block
//! device. Everything that is published is bound from it.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::device_nodes::{DeviceNodeError, DeviceNodes};
use super::origin::Origin;
use host_fs::mount::AttributeChange;
use host_fs::mount::TableError;
use host_fs::mount::layers_at;
use host_fs::mount::{BindError, Binder};
use host_fs::mount::{Device, Mount};
use host_fs::mount::{Patience, UnmountError, unmount_owned, unmount_top};

/// Why the plugin's own mount could not be made; nothing of it is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum AliasError {
    /// The file system is read-only, and mounting it once more would fail or hide that.
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
    /// The mount point could not be made.
    #[error("cannot make the directory {}", .path.display())]
    Directory {
        /// The mount point.
        path: PathBuf,
        /// What the file system answered.
        #[source]
        source: io::Error,
    },
    /// Something else is mounted at the mount point.
    #[error("{} is in use by another mount: {found}", .path.display())]
    Occupied {
        /// The mount point.
        path: PathBuf,
        /// What is there.
        found: Box<Mount>,
    },
    /// A mount of ours is there that is not the volume as Flocker has it now.
    #[error("{found} has our name, but Flocker has the volume on device {expected}, for reading and writing")]
    Stale {
        /// What is there.
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
        /// The device that should be there.
        device: Device,
        /// The mount point.
        path: PathBuf,
        /// What is there, in words.
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
pub fn alias_path(staging: &Path, dataset_id: Uuid) -> PathBuf {
    staging.join(dataset_id.to_string())
}

/// Makes and removes the plugin's own mounts.
#[derive(Debug, Clone)]
pub struct Aliases {
    nodes: DeviceNodes,
    binder: Binder,
}

impl Aliases {
    /// Uses these device nodes, and this way to bind where there is no device.
    pub fn new(nodes: DeviceNodes, binder: Binder) -> Aliases {
        Aliases { nodes, binder }
    }

    /// Returns the device nodes in use.
    pub fn nodes(&self) -> &DeviceNodes {
        &self.nodes
    }

    /// Tells where the plugin's mounts of a volume come from, given Flocker's mount of it.
    pub fn origin(&self, dataset_id: Uuid, flocker: &Mount) -> Origin {
        Origin::of(flocker, &self.nodes.path(dataset_id))
    }

    /// Mounts a dataset for a staging path, which must exist and be free of symbolic links.
    ///
    /// A sound mount that is there already is returned as it is. The device node is made anew in any case. One caller
    /// at a time may work for the same dataset.
    pub fn mount(&self, dataset_id: Uuid, flocker: &Mount, staging: &Path) -> Result<Mount, AliasError> {
        if flocker.file_system_read_only() {
            return Err(AliasError::ReadOnly(Box::new(flocker.clone())));
        }
        let origin = self.origin(dataset_id, flocker);
        let path = alias_path(staging, dataset_id);
        if let Some(found) = visible(&path)? {
            return if !origin.owns(&found) {
                Err(AliasError::Occupied {
                    path,
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
        let made = make_directory(&path)?;
        let mounted = match &origin {
            Origin::Alias { node } => self.mount_device(dataset_id, flocker, node, &path),
            Origin::Bind { .. } => self
                .binder
                .bind(flocker, &path, AttributeChange::default())
                .map_err(|source| AliasError::Bind {
                    dataset_id,
                    source: Box::new(source),
                }),
        };
        if mounted.is_err() && made {
            discard(&path, std::fs::remove_dir(&path));
        }
        mounted
    }

    /// Unmounts a dataset from a staging path and removes the directory it was mounted at.
    ///
    /// The device node stays, because the dataset may be mounted for another staging path too. Nothing to do is
    /// success.
    pub fn unmount(
        &self,
        dataset_id: Uuid,
        origin: &Origin,
        staging: &Path,
        patience: Patience,
    ) -> Result<(), UnmountError> {
        let path = alias_path(staging, dataset_id);
        unmount_owned(&path, |mount| origin.owns(mount), patience)?;
        match std::fs::remove_dir(&path) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(UnmountError::Directory { path, source: error })
            }
            _ => Ok(()),
        }
    }

    /// Removes the device node of a dataset that this process no longer mounts. It lies elsewhere than usual where the
    /// dataset was staged with another device directory.
    pub fn forget_device(&self, dataset_id: Uuid, node: &Path) -> Result<(), DeviceNodeError> {
        self.nodes.remove(dataset_id, node)
    }

    fn mount_device(
        &self,
        dataset_id: Uuid,
        flocker: &Mount,
        node: &Path,
        path: &Path,
    ) -> Result<Mount, AliasError> {
        if flocker.root != Path::new("/") {
            return Err(AliasError::Partial(Box::new(flocker.clone())));
        }
        let device = flocker.device;
        self.nodes
            .make(dataset_id, device)
            .map_err(|source| AliasError::DeviceNode { dataset_id, source })?;
        // No options: those of the file system are decided by its first mount, which is Flocker's.
        let mounted = sys_mount::Mount::builder()
            .fstype(flocker.fs_type.as_str())
            .mount(node, path);
        mounted.map_err(|source| AliasError::Mount {
            node: node.to_owned(),
            fs_type: flocker.fs_type.clone(),
            device,
            path: path.to_owned(),
            source,
        })?;
        let verified = verify(flocker, node, path);
        if verified.is_err() {
            let undone = unmount_top(path, Patience::default());
            discard(path, undone.map_err(io::Error::from));
        }
        verified
    }
}

fn verify(flocker: &Mount, node: &Path, path: &Path) -> Result<Mount, AliasError> {
    let unverified = |found: String| AliasError::Unverified {
        device: flocker.device,
        path: path.to_owned(),
        found,
    };
    let mount = visible(path)?.ok_or_else(|| unverified("no mount".to_owned()))?;
    if Path::new(&mount.source) != node
        || (mount.device, &mount.root, mount.read_only()) != (flocker.device, &flocker.root, false)
    {
        return Err(unverified(mount.to_string()));
    }
    Ok(mount)
}

fn visible(path: &Path) -> Result<Option<Mount>, AliasError> {
    let layers = layers_at(path).map_err(|source| AliasError::Table {
        path: path.to_owned(),
        source,
    });
    Ok(layers?.pop())
}

/// Makes the mount point, or takes a directory that an interrupted attempt left; answers whether it was made.
fn make_directory(path: &Path) -> Result<bool, AliasError> {
    let failed = |source| AliasError::Directory {
        path: path.to_owned(),
        source,
    };
    match DirBuilder::new().mode(0o750).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let found = path.symlink_metadata().map_err(failed)?;
            if found.is_dir() {
                Ok(false)
            } else {
                Err(failed(error))
            }
        }
        Err(error) => Err(failed(error)),
    }
}

/// Takes note of a step back that failed; the error that made it necessary is the one that is answered.
fn discard(path: &Path, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(path = %path.display(), %error, "Could not undo a failed mount");
    }
}

#[cfg(test)]
mod tests;
