//! Device nodes that give block devices the plugin's own names.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, StatVfsMountFlags, lstat};
use uuid::Uuid;

use host_fs::mount::Device;
use host_fs::remove_name;

/// Why a device node cannot be made or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceNodeError {
    /// Device nodes have no effect in that directory.
    #[error(
        "{} lies on a file system mounted nodev, where no device can be opened; \
         set device_dir to a directory below /dev", .0.display()
    )]
    NoDevices(PathBuf),
    /// The file system or the lack of a capability (`CAP_MKNOD`) prevents it.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// The step.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
}

impl DeviceNodeError {
    fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> DeviceNodeError {
        DeviceNodeError::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// The directory of the plugin's device nodes, one for each dataset in use.
#[derive(Debug, Clone)]
pub(crate) struct DeviceNodes {
    directory: PathBuf,
}

impl DeviceNodes {
    /// Uses a directory, which need not exist.
    pub(crate) fn new(directory: impl Into<PathBuf>) -> DeviceNodes {
        DeviceNodes {
            directory: directory.into(),
        }
    }

    /// Returns the path of the node of a dataset, which need not exist.
    pub(crate) fn path(&self, dataset_id: Uuid) -> PathBuf {
        self.directory.join(dataset_id.to_string())
    }

    /// Makes the node of a dataset, replacing one that an earlier boot or device may have left.
    ///
    /// One caller at a time may change the same dataset.
    pub(crate) fn make(&self, dataset_id: Uuid, device: Device) -> Result<PathBuf, DeviceNodeError> {
        let node = self.path(dataset_id);
        let fresh = self.unfinished(dataset_id);
        remove_file(&fresh)?;
        self.prepare_directory()?;
        rustix::fs::mknodat(
            CWD,
            &fresh,
            FileType::BlockDevice,
            Mode::RUSR | Mode::WUSR,
            device.to_raw(),
        )
        .map_err(|error| DeviceNodeError::io("make the device node", &fresh, error))?;
        // Renamed into place, so that no process ever opens a node with the numbers of another device.
        std::fs::rename(&fresh, &node)
            .map_err(|error| DeviceNodeError::io("rename the device node to", &node, error))?;
        Ok(node)
    }

    /// Removes the node of a dataset, which is in another directory where an earlier process had another setting, with
    /// what a killed process may have left of it.
    pub(crate) fn remove(&self, dataset_id: Uuid, node: &Path) -> Result<(), DeviceNodeError> {
        remove_file(&self.unfinished(dataset_id))?;
        if device_of_node(node).is_none() && node.exists() {
            // The directory is the plugin's, but this file is not.
            tracing::warn!(path = %node.display(), "{} is no device node and is left unchanged", node.display());
            return Ok(());
        }
        remove_file(node)
    }

    /// Returns the datasets that have a node, finished or not.
    pub(crate) fn datasets(&self) -> BTreeSet<Uuid> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let named = entries.filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            name.strip_prefix('.').unwrap_or(name).parse().ok()
        });
        named.collect()
    }

    fn unfinished(&self, dataset_id: Uuid) -> PathBuf {
        self.directory.join(format!(".{dataset_id}"))
    }

    fn prepare_directory(&self) -> Result<(), DeviceNodeError> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(DeviceNodeError::io("make the directory", &self.directory, error));
            }
            _ => {}
        }
        match rustix::fs::statvfs(&self.directory) {
            Ok(status) if status.f_flag.contains(StatVfsMountFlags::NODEV) => {
                Err(DeviceNodeError::NoDevices(self.directory.clone()))
            }
            // Any other fault shows when the node is made.
            _ => Ok(()),
        }
    }
}

/// Returns the device of which a device node has the number.
pub(crate) fn device_of_node(path: &Path) -> Option<Device> {
    let status = lstat(path).ok()?;
    let is_block = FileType::from_raw_mode(status.st_mode) == FileType::BlockDevice;
    is_block.then(|| Device::from_raw(status.st_rdev))
}

fn remove_file(path: &Path) -> Result<(), DeviceNodeError> {
    let removed = remove_name(path).map(drop);
    removed.map_err(|error| DeviceNodeError::io("remove the device node", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use host_fs::mount::testing::in_own_namespace;
    use rustix::mount::{MountFlags, mount};
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

    const FIRST: Device = Device { major: 7, minor: 1 };
    const SECOND: Device = Device { major: 7, minor: 300 };

    /// Mounts a file system on which device nodes have effect.
    fn nodes(scratch: &Path) -> DeviceNodes {
        mount("dev", scratch, "tmpfs", MountFlags::empty(), None).unwrap();
        DeviceNodes::new(scratch.join("devices"))
    }

    #[test]
    fn a_node_is_for_root_alone_and_follows_the_device() {
        in_own_namespace(|scratch| {
            let (nodes, id) = (nodes(scratch), Uuid::new_v4());
            for device in [FIRST, SECOND] {
                let found = nodes.make(id, device).unwrap().metadata().unwrap();
                assert!(found.file_type().is_block_device());
                assert_eq!(Device::from_raw(found.rdev()), device);
                assert_eq!(device_of_node(&nodes.path(id)), Some(device));
                assert_eq!(found.permissions().mode() & 0o7777, 0o600);
            }
            assert_eq!(std::fs::read_dir(scratch.join("devices")).unwrap().count(), 1);
        });
    }

    #[test]
    fn a_node_of_an_earlier_directory_is_removed_there() {
        in_own_namespace(|scratch| {
            let (earlier, id) = (nodes(scratch), Uuid::new_v4());
            let node = earlier.make(id, FIRST).unwrap();
            let now = DeviceNodes::new(scratch.join("now"));
            now.remove(id, &node).unwrap();
            now.remove(id, &node).unwrap();
            assert!(!node.exists());
        });
    }

    #[test]
    fn an_unfinished_node_of_a_crash_is_replaced_or_removed() {
        in_own_namespace(|scratch| {
            let (nodes, id) = (nodes(scratch), Uuid::new_v4());
            let crash = || {
                std::fs::create_dir_all(scratch.join("devices")).unwrap();
                std::fs::write(scratch.join(format!("devices/.{id}")), "").unwrap();
            };
            crash();
            nodes.remove(id, &nodes.path(id)).unwrap();
            assert_eq!(std::fs::read_dir(scratch.join("devices")).unwrap().count(), 0);
            crash();
            assert!(
                nodes
                    .make(id, FIRST)
                    .unwrap()
                    .metadata()
                    .unwrap()
                    .file_type()
                    .is_block_device()
            );
        });
    }

    #[test]
    fn a_file_system_without_devices_is_refused() {
        in_own_namespace(|scratch| {
            mount("dev", scratch, "tmpfs", MountFlags::NODEV, None).unwrap();
            let error = DeviceNodes::new(scratch.join("devices"))
                .make(Uuid::new_v4(), FIRST)
                .unwrap_err();
            assert!(matches!(error, DeviceNodeError::NoDevices(_)), "{error}");
            assert!(error.to_string().contains("device_dir"), "{error}");
        });
    }
}
