//! Mounting and unmounting as Flocker's agent does it.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use host_fs::mount::{MountTable, layers_at};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use uuid::Uuid;

use super::error::StepError;
use super::storage::Backend;
use crate::options::NodeInfo;

/// The directory that mkfs creates in the root of a file system.
const LOST_AND_FOUND: &str = "lost+found";

impl Backend {
    /// Mounts the device of a dataset on a node. A fresh file system is then emptied and opened to all users.
    pub(crate) fn mount(&self, dataset: Uuid, device: &Path, node: &NodeInfo) -> Result<(), StepError> {
        let _held = self.hold(dataset, device)?;
        let path = node.mount_path(dataset);
        fs::create_dir_all(&path).map_err(StepError::io("create", &path))?;
        fs::set_permissions(&node.mount_root, Permissions::from_mode(0o700))
            .map_err(StepError::io("set the mode of", &node.mount_root))?;
        rustix::mount::mount(device, &path, "ext4", MountFlags::empty(), None).map_err(
            |errno| match errno {
                // What the kernel says of a file system that it cannot read.
                Errno::INVAL | Errno::UCLEAN => StepError::MountRefused {
                    device: device.to_owned(),
                    source: errno.into(),
                },
                errno => StepError::io("mount", &path)(errno.into()),
            },
        )?;
        open_to_all(&path).map_err(StepError::io("prepare the root of", &path))
    }

    /// Unmounts the device of a dataset by name: the last line of the mount table that names it decides where.
    pub(crate) fn unmount(&self, dataset: Uuid, device: &Path) -> Result<(), StepError> {
        let _held = self.hold(dataset, device)?;
        let table = MountTable::read()?;
        let Some(mount_point) = table.last_point_of(device.as_os_str()) else {
            return Ok(());
        };
        unmount_from(mount_point)
    }
}

/// Returns where each device is mounted, by its name: as [`MountTable::last_point_of`], for all.
pub(super) fn mount_points(table: &MountTable) -> HashMap<&Path, &Path> {
    let mounts = table.mounts().iter();
    mounts
        .map(|mount| (Path::new(&mount.source), mount.point.as_path()))
        .collect()
}

/// Returns whether anything is mounted at a mount point.
#[cfg(test)]
pub(crate) fn is_mounted(mount_point: &Path) -> Result<bool, StepError> {
    Ok(!layers_at(mount_point)?.is_empty())
}

/// Unmounts the topmost mount of a mount point.
pub(super) fn unmount_from(mount_point: &Path) -> Result<(), StepError> {
    match rustix::mount::unmount(mount_point, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(StepError::Busy(mount_point.to_owned())),
        Err(errno) => Err(StepError::io("unmount", mount_point)(errno.into())),
    }
}

/// Detaches all mounts of a mount point: processes that use them keep them until they end.
pub(super) fn unmount_all_from(mount_point: &Path) -> Result<(), StepError> {
    for _ in layers_at(mount_point)? {
        let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
        rustix::mount::unmount(mount_point, flags)
            .map_err(|errno| StepError::io("unmount", mount_point)(errno.into()))?;
    }
    Ok(())
}

/// Does what the agent does to a file system whose root contains only `lost+found`.
fn open_to_all(root: &Path) -> io::Result<()> {
    let names: Vec<_> = fs::read_dir(root)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<_>>()?;
    if names == [LOST_AND_FOUND] {
        fs::remove_dir(root.join(LOST_AND_FOUND))?;
        fs::set_permissions(root, Permissions::from_mode(0o777))?;
    }
    Ok(())
}
