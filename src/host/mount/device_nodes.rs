//! The plugin's own names for block devices.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, StatVfsMountFlags};
use uuid::Uuid;

use host_fs::mount::Device;

/// How often the directory is made again when it is removed in between for being empty.
const ATTEMPTS: usize = 16;

/// Why there is no device node.
#[derive(Debug, thiserror::Error)]
pub enum DeviceNodeError {
    /// Device nodes have no effect there.
    #[error(
        "{} lies on a file system mounted nodev, where no device can be opened; \
         set device_dir to a directory below /dev", .0.display()
    )]
    NoDevices(PathBuf),
    /// The file system or the lack of a capability (`CAP_MKNOD`) prevents it.
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
pub struct DeviceNodes {
    directory: PathBuf,
}

impl DeviceNodes {
    /// Uses a directory, which need not exist.
    pub fn new(directory: impl Into<PathBuf>) -> DeviceNodes {
        DeviceNodes {
            directory: directory.into(),
        }
    }

    /// Returns the node a dataset has, or would have.
    pub fn path(&self, dataset_id: Uuid) -> PathBuf {
        self.directory.join(dataset_id.to_string())
    }

    /// Makes the node of a dataset, replacing one that an earlier boot or device may have left.
    ///
    /// One caller at a time may work for the same dataset.
    pub fn make(&self, dataset_id: Uuid, device: Device) -> Result<PathBuf, DeviceNodeError> {
        let node = self.path(dataset_id);
        let fresh = self.unfinished(dataset_id);
        remove_file(&fresh)?;
        for attempt in 1.. {
            self.make_directory()?;
            match rustix::fs::mknodat(
                CWD,
                &fresh,
                FileType::BlockDevice,
                Mode::RUSR | Mode::WUSR,
                device.to_raw(),
            ) {
                Ok(()) => break,
                // Another call removed the last other node and the empty directory with it.
                Err(rustix::io::Errno::NOENT) if attempt < ATTEMPTS => {}
                Err(error) => return Err(DeviceNodeError::io("make the device node", &fresh, error)),
            }
        }
        // Renamed into place, so that no process ever opens a node with the numbers of another device.
        std::fs::rename(&fresh, &node)
            .map_err(|error| DeviceNodeError::io("rename the device node to", &node, error))?;
        Ok(node)
    }

    /// Removes the node of a dataset with what a killed process may have left of it, and the directory with the last
    /// node.
    pub fn remove(&self, dataset_id: Uuid) -> Result<(), DeviceNodeError> {
        for node in [self.unfinished(dataset_id), self.path(dataset_id)] {
            remove_file(&node)?;
        }
        match std::fs::remove_dir(&self.directory) {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Ok(())
            }
            // A directory that is a mount point itself stays.
            Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(()),
            Err(error) => Err(DeviceNodeError::io(
                "remove the empty directory",
                &self.directory,
                error,
            )),
        }
    }

    fn unfinished(&self, dataset_id: Uuid) -> PathBuf {
        self.directory.join(format!(".{dataset_id}"))
    }

    fn make_directory(&self) -> Result<(), DeviceNodeError> {
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

fn remove_file(path: &Path) -> Result<(), DeviceNodeError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(DeviceNodeError::io("remove the device node", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host_fs::mount::testing::in_own_namespace;
    use rustix::mount::{MountFlags, mount};
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

    const FIRST: Device = Device { major: 7, minor: 1 };
    const SECOND: Device = Device { major: 7, minor: 300 };

    /// A place where device nodes have effect.
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
                assert_eq!(found.permissions().mode() & 0o7777, 0o600);
            }
            assert_eq!(std::fs::read_dir(scratch.join("devices")).unwrap().count(), 1);
        });
    }

    #[test]
    fn the_directory_is_removed_with_the_last_node() {
        in_own_namespace(|scratch| {
            let (nodes, one, two) = (nodes(scratch), Uuid::new_v4(), Uuid::new_v4());
            nodes.make(one, FIRST).unwrap();
            nodes.make(two, SECOND).unwrap();
            nodes.remove(one).unwrap();
            assert!(nodes.path(two).exists());
            nodes.remove(two).unwrap();
            nodes.remove(two).unwrap();
            assert!(!scratch.join("devices").exists());
        });
    }

    #[test]
    fn an_unfinished_node_of_a_crash_is_replaced_or_removed() {
        in_own_namespace(|scratch| {
            let (nodes, id) = (nodes(scratch), Uuid::new_v4());
            let crash = || {
                std::fs::create_dir(scratch.join("devices")).unwrap();
                std::fs::write(scratch.join(format!("devices/.{id}")), "").unwrap();
            };
            crash();
            nodes.remove(id).unwrap();
            assert!(!scratch.join("devices").exists());
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

    #[test]
    fn many_nodes_are_made_and_removed_concurrently() {
        in_own_namespace(|scratch| {
            let nodes = nodes(scratch);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let id = Uuid::new_v4();
                        for _ in 0..200 {
                            nodes.make(id, FIRST).unwrap();
                            nodes.remove(id).unwrap();
                        }
                    });
                }
            });
            assert!(!scratch.join("devices").exists());
        });
    }
}
