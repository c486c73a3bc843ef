//! The faults that the kernel reports of a file system and its device.

use std::fmt;
use std::fs;
use std::path::Path;

use host_fs::mount::{Device, Mount};

/// Where the kernel lists block devices by their numbers.
const DEVICES: &str = "/sys/dev/block";
/// Where ext4 describes its file systems, by the names of their devices.
const EXT4: &str = "/sys/fs/ext4";

/// A fault of the file system of a volume, or of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileSystemFault {
    /// The kernel no longer lists the device.
    DeviceMissing(Device),
    /// The file system was shut down on this node.
    ShutDown,
    /// It was mounted for writing, and is read-only.
    ReadOnly,
    /// It has reported errors since it was last checked.
    Errors {
        /// Its device.
        device: Device,
        /// How many.
        count: u64,
        /// The function of the kernel that found the last one.
        place: String,
    },
}

impl fmt::Display for FileSystemFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceMissing(device) => write!(
                f,
                "device {device} no longer exists; attach it again, and check the file system"
            ),
            Self::ShutDown => write!(
                f,
                "the file system was shut down on this node; unpublish the volume everywhere and unstage it, before it is \
                 staged again"
            ),
            Self::ReadOnly => write!(
                f,
                "the file system has become read-only, usually after an I/O error; it needs a repair"
            ),
            Self::Errors { device, count, place } => write!(
                f,
                "the file system on device {device} has reported {count} errors since its last check, the last one in \
                 {place}; it needs a repair"
            ),
        }
    }
}

/// Returns the fault of the file system of a mount, if one is known.
///
/// The kernel answers from memory, so a device that hangs blocks no caller.
pub(crate) fn file_system_fault(mount: &Mount) -> Option<FileSystemFault> {
    fault_by(mount, Path::new(DEVICES), Path::new(EXT4))
}

/// Returns whether the kernel no longer lists the device of a mount.
pub(crate) fn device_is_missing(mount: &Mount) -> bool {
    is_missing_from(mount, Path::new(DEVICES))
}

fn is_missing_from(mount: &Mount, devices: &Path) -> bool {
    // In a container without sysfs nothing is known.
    mount.device.is_block() && !devices.join(mount.device.to_string()).exists() && devices.exists()
}

fn fault_by(mount: &Mount, devices: &Path, ext4: &Path) -> Option<FileSystemFault> {
    if is_missing_from(mount, devices) {
        return Some(FileSystemFault::DeviceMissing(mount.device));
    }
    if mount.file_system_shut_down() {
        return Some(FileSystemFault::ShutDown);
    }
    if mount.file_system_read_only() {
        return Some(FileSystemFault::ReadOnly);
    }
    let device = fs::canonicalize(devices.join(mount.device.to_string())).ok()?;
    let about = ext4.join(device.file_name()?);
    let read = |name: &str| Some(fs::read_to_string(about.join(name)).ok()?.trim().to_owned());
    let count: u64 = read("errors_count")?.parse().ok()?;
    (count > 0).then(|| FileSystemFault::Errors {
        device: mount.device,
        count,
        place: read("last_error_func").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::origin::tests::mounted;
    use super::*;

    /// Writes the files in which the kernel describes device 7:5.
    fn system(errors: &str) -> tempfile::TempDir {
        let system = tempfile::tempdir().unwrap();
        let path = |name: &str| system.path().join(name);
        for directory in ["devices", "block/loop5", "ext4/loop5"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        symlink("../block/loop5", path("devices/7:5")).unwrap();
        fs::write(path("ext4/loop5/errors_count"), errors).unwrap();
        fs::write(path("ext4/loop5/last_error_func"), "ext4_lookup\n").unwrap();
        system
    }

    fn fault(system: &Path, device: &str) -> Option<FileSystemFault> {
        let mount = mounted("/dev/flocker-csi/1", device, "/target");
        fault_by(&mount, &system.join("devices"), &system.join("ext4"))
    }

    #[test]
    fn errors_that_ext4_counts_are_reported_with_their_place() {
        let system = system("2\n");
        let text = fault(system.path(), "7:5").unwrap().to_string();
        assert!(
            text.contains("7:5") && text.contains("2 errors") && text.contains("ext4_lookup"),
            "{text}"
        );
    }

    #[test]
    fn a_healthy_file_system_has_no_fault() {
        assert_eq!(fault(system("0\n").path(), "7:5"), None);
    }

    #[test]
    fn a_device_that_the_kernel_does_not_list_is_missing() {
        let system = system("0\n");
        assert!(
            fault(system.path(), "7:6")
                .unwrap()
                .to_string()
                .contains("device 7:6 no longer exists")
        );
        assert_eq!(fault(system.path(), "0:6"), None, "it never was one");
        assert_eq!(fault(Path::new("/missing"), "7:6"), None, "nothing is known");
    }
}
