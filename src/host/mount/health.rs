//! The faults that the kernel reports of a file system and its device.

use std::fs;
use std::path::Path;

use host_fs::mount::Mount;

/// Where the kernel lists block devices by their numbers.
const DEVICES: &str = "/sys/dev/block";
/// Where ext4 describes its file systems, by the names of their devices.
const EXT4: &str = "/sys/fs/ext4";

/// Returns the fault of the file system of a mount, if one is known.
///
/// The kernel answers from memory, so a device that hangs blocks no caller.
pub(crate) fn file_system_fault(mount: &Mount) -> Option<String> {
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

fn fault_by(mount: &Mount, devices: &Path, ext4: &Path) -> Option<String> {
    if is_missing_from(mount, devices) {
        return Some(format!(
            "device {} no longer exists; attach it again, and check the file system",
            mount.device
        ));
    }
    if mount.file_system_shut_down() {
        return Some(
            "the file system was shut down on this node; unpublish the volume everywhere and unstage it, before it is staged \
             again"
                .to_owned(),
        );
    }
    if mount.file_system_read_only() {
        return Some(
            "the file system has become read-only, usually after an I/O error; it needs a repair".to_owned(),
        );
    }
    let device = fs::canonicalize(devices.join(mount.device.to_string())).ok()?;
    let about = ext4.join(device.file_name()?);
    let read = |name: &str| Some(fs::read_to_string(about.join(name)).ok()?.trim().to_owned());
    let errors: u64 = read("errors_count")?.parse().ok()?;
    (errors > 0).then(|| {
        let place = read("last_error_func").unwrap_or_default();
        format!(
            "the file system on device {} has reported {errors} errors since its last check, the last one in {place}; it needs \
             a repair",
            mount.device
        )
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

    fn fault(system: &Path, device: &str) -> Option<String> {
        let mount = mounted("/dev/flocker-csi/1", device, "/target");
        fault_by(&mount, &system.join("devices"), &system.join("ext4"))
    }

    #[test]
    fn errors_that_ext4_counts_are_reported_with_their_place() {
        let system = system("2\n");
        let text = fault(system.path(), "7:5").unwrap();
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
                .contains("device 7:6 no longer exists")
        );
        assert_eq!(fault(system.path(), "0:6"), None, "it never was one");
        assert_eq!(fault(Path::new("/missing"), "7:6"), None, "nothing is known");
    }
}
