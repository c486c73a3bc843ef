//! What distinguishes the plugin's mounts of one volume from all other mounts.
//!
//! [`Origin::ownership`] is the one function that decides it, at unmount as at publish. Nothing that can be chosen or
//! used again decides alone: not the name of a source, not the number of a device, not a path, and no record of another
//! boot of the machine.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use host_fs::mount::{Device, Mount};

/// Where the plugin's mounts of a volume come from, in one boot of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Origin {
    /// The block device, under a device node of the plugin's own.
    ///
    /// Flocker's agent distinguishes mounts by the name of their source. It ignores mounts of this name, and every
    /// mount bound from them keeps the name.
    Alias {
        /// The device node.
        node: PathBuf,
        /// The device; `None` where no record names it: in records of version 2 and before, and where they were lost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<Device>,
    },
    /// Flocker's own mount, because the file system does not lie on a block device.
    Bind {
        /// The device number of the file system, which another one may have after the last unmount.
        device: Device,
        /// The directory of the file system that Flocker mounts.
        root: PathBuf,
        /// Where Flocker mounts it: the only one of these mounts that is not the plugin's.
        flocker: PathBuf,
        /// The type of the file system. Records of version 2 and before do not name it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fs_type: Option<String>,
        /// The id of the file system, which no other one gets; `None` where it has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fs_id: Option<u64>,
    },
}

/// What a mount is to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ownership {
    /// Nothing.
    Foreign,
    /// It shows the volume, or a directory of it, and the plugin may not have made it: the volume is in use, and the mount
    /// is never unmounted.
    InUse,
    /// The plugin's mount.
    Ours,
}

/// What is known at this moment of the devices of one volume, apart from its records.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KnownDevices {
    /// The device of the mount that this process pins. As long as it does, no other file system gets that number.
    pub(crate) pinned: Option<Device>,
    /// The device of which the plugin's device node has the number.
    pub(crate) node: Option<Device>,
}

impl Origin {
    /// Chooses the origin for the volume that Flocker has mounted, given the device node it would have.
    pub(crate) fn of(flocker: &Mount, node: &Path, fs_id: impl FnOnce(&Mount) -> Option<u64>) -> Origin {
        if flocker.device.is_block() {
            Origin::Alias {
                node: node.to_owned(),
                device: Some(flocker.device),
            }
        } else {
            Origin::Bind {
                device: flocker.device,
                root: flocker.root.clone(),
                flocker: flocker.point.clone(),
                fs_type: Some(flocker.fs_type.clone()),
                fs_id: fs_id(flocker),
            }
        }
    }

    /// Returns the name of the source of these mounts, if they have one of their own.
    pub(crate) fn source(&self) -> Option<&Path> {
        match self {
            Origin::Alias { node, .. } => Some(node),
            Origin::Bind { .. } => None,
        }
    }

    /// Returns the device of these mounts, where it is known.
    pub(crate) fn device(&self) -> Option<Device> {
        match self {
            Origin::Alias { device, .. } => *device,
            Origin::Bind { device, .. } => Some(*device),
        }
    }

    /// Returns what a mount is to the volume. The origin must be of this boot of the machine, and of a staging that has
    /// not ended; `fs_id` asks the file system of a mount for its id.
    pub(crate) fn ownership(
        &self,
        mount: &Mount,
        known: KnownDevices,
        fs_id: impl FnOnce(&Mount) -> Option<u64>,
    ) -> Ownership {
        match self {
            Origin::Alias { node, device } => {
                let is_device = match device {
                    Some(device) => mount.device == *device,
                    None => [known.pinned, known.node].contains(&Some(mount.device)),
                };
                // A file system without a block device takes any text for the name of its source.
                if !is_device || !mount.device.is_block() || Path::new(&mount.source) != node {
                    return Ownership::Foreign;
                }
                of_root(&mount.root, Path::new("/"))
            }
            Origin::Bind {
                device,
                root,
                flocker,
                fs_type,
                fs_id: recorded,
            } => {
                let is_type = fs_type.as_ref().is_none_or(|fs_type| mount.fs_type == *fs_type);
                if mount.device != *device || !is_type || mount.point == *flocker {
                    return Ownership::Foreign;
                }
                let by_root = of_root(&mount.root, root);
                if by_root == Ownership::Foreign || known.pinned == Some(*device) {
                    return by_root;
                }
                match (recorded, fs_id(mount)) {
                    (Some(recorded), Some(found)) if *recorded == found => by_root,
                    (Some(_), Some(_)) => Ownership::Foreign,
                    _ => Ownership::InUse,
                }
            }
        }
    }
}

/// Returns what a mount of the volume's file system is, by the directory that it shows.
fn of_root(shown: &Path, volume: &Path) -> Ownership {
    if shown == volume {
        Ownership::Ours
    } else if shown.starts_with(volume) {
        Ownership::InUse
    } else {
        Ownership::Foreign
    }
}

#[cfg(test)]
pub(super) mod tests;
