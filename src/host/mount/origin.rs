//! What distinguishes the plugin's mounts of one volume from all other mounts.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use host_fs::mount::{Device, Mount};

/// Where the plugin's mounts of a volume come from.
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
    },
    /// Flocker's own mount, because the file system does not lie on a block device.
    Bind {
        /// The device number of the file system.
        device: Device,
        /// The directory of the file system that Flocker mounts.
        root: PathBuf,
        /// Where Flocker mounts it: the only one of these mounts that is not the plugin's.
        flocker: PathBuf,
    },
}

impl Origin {
    /// Chooses the origin for the volume that Flocker has mounted, given the device node it would have.
    pub(crate) fn of(flocker: &Mount, node: &Path) -> Origin {
        if flocker.device.is_block() {
            Origin::Alias {
                node: node.to_owned(),
            }
        } else {
            Origin::Bind {
                device: flocker.device,
                root: flocker.root.clone(),
                flocker: flocker.point.clone(),
            }
        }
    }

    /// Returns the source name of these mounts, if that distinguishes them from other mounts.
    pub(crate) fn source(&self) -> Option<&Path> {
        match self {
            Origin::Alias { node } => Some(node),
            Origin::Bind { .. } => None,
        }
    }

    /// Returns whether a mount is one of the plugin's mounts of this volume.
    pub(crate) fn owns(&self, mount: &Mount) -> bool {
        match self {
            Origin::Alias { node } => Path::new(&mount.source) == node,
            Origin::Bind {
                device,
                root,
                flocker,
            } => mount.device == *device && mount.root == *root && mount.point != *flocker,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use host_fs::mount::MountTable;

    /// Returns a mount parsed from a line of mountinfo.
    pub(crate) fn mounted(source: &str, device: &str, point: &str) -> Mount {
        let line = format!("70 27 {device} / {point} rw,relatime - ext4 {source} rw\n");
        MountTable::parse(line.as_bytes()).unwrap().mounts()[0].clone()
    }

    #[test]
    fn a_block_device_is_recognised_by_the_name_of_its_node() {
        let node = Path::new("/dev/flocker-csi/1");
        let origin = Origin::of(&mounted("/dev/xvdf", "202:80", "/flocker/1"), node);
        assert!(origin.owns(&mounted("/dev/flocker-csi/1", "202:80", "/target")));
        assert!(!origin.owns(&mounted("/dev/flocker-csi/2", "202:80", "/target")));
        assert!(!origin.owns(&mounted("/dev/xvdf", "202:80", "/target")));
    }

    #[test]
    fn without_a_block_device_every_mount_but_flockers_own_is_the_plugins() {
        let flocker = mounted("pool/1", "0:52", "/flocker/1");
        let origin = Origin::of(&flocker, Path::new("/dev/flocker-csi/1"));
        assert!(origin.owns(&mounted("pool/1", "0:52", "/target")));
        assert!(!origin.owns(&mounted("pool/2", "0:53", "/target")));
        assert!(!origin.owns(&flocker));
    }

    #[test]
    fn an_origin_survives_serialisation() {
        for origin in [
            Origin::Alias {
                node: "/dev/flocker-csi/1".into(),
            },
            Origin::of(&mounted("pool/1", "0:52", "/flocker/1"), Path::new("/unused")),
        ] {
            let text = serde_json::to_string(&origin).unwrap();
            assert_eq!(serde_json::from_str::<Origin>(&text).unwrap(), origin);
        }
    }
}
