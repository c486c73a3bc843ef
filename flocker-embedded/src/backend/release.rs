//! What a graceful stop does to the datasets of a node.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use host_fs::mount::{Device, MountTable};
use uuid::Uuid;

use super::discovery::{Condition, Seen};
use super::error::{Outcomes, StepError};
use super::mounting::{mount_points, unmount_from};
use super::storage::Backend;

/// What a graceful stop did with a dataset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Released {
    /// It is published or in use, so it stays attached.
    Kept,
    /// It is unmounted, and the kernel frees the device when the last process closes it.
    Lingering,
    Detached,
}

impl Backend {
    /// Unmounts and detaches datasets as the agent of their node saw them. A dataset that is mounted elsewhere too,
    /// under any device name, or in use, stays as it is.
    pub(crate) fn release(&self, seen: &BTreeMap<Uuid, Seen>) -> Result<Outcomes<Released>, StepError> {
        let table = MountTable::read()?;
        let (mount_points, shared) = (mount_points(&table), mount_points_of_shared_devices(&table));
        let mut outcomes = Vec::new();
        for (dataset, seen) in seen {
            let Some(device) = seen.condition.device() else {
                continue;
            };
            let mount_point = mount_points.get(device).copied();
            let is_ours = matches!(seen.condition, Condition::Mounted(_));
            let outcome = match mount_point {
                Some(mount_point) if !is_ours || shared.contains(mount_point) => Ok(Released::Kept),
                _ => self.release_one(*dataset, device, mount_point),
            };
            outcomes.push((*dataset, outcome));
        }
        Ok(outcomes)
    }

    fn release_one(
        &self,
        dataset: Uuid,
        device: &Path,
        mount_point: Option<&Path>,
    ) -> Result<Released, StepError> {
        let unmounted = match mount_point {
            Some(mount_point) => self
                .hold(dataset, device)
                .and_then(|_held| unmount_from(mount_point)),
            None => Ok(()),
        };
        match unmounted.and_then(|()| self.detach(dataset, device)) {
            Ok(()) => Ok(Released::Detached),
            Err(StepError::Busy(_)) => Ok(Released::Kept),
            Err(StepError::StillAttached(_)) => Ok(Released::Lingering),
            Err(error) => Err(error),
        }
    }
}

/// Returns the mount points of the devices that are mounted more than once, under any name.
fn mount_points_of_shared_devices(table: &MountTable) -> HashSet<&Path> {
    let mut mounts: HashMap<Device, usize> = HashMap::new();
    for mount in table.mounts() {
        *mounts.entry(mount.device).or_default() += 1;
    }
    let shared = table
        .mounts()
        .iter()
        .filter(|mount| mounts.get(&mount.device) > Some(&1));
    shared.map(|mount| mount.point.as_path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
        22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        90 22 7:3 / /data/flocker/node-1/one rw,relatime shared:5 master:2 - ext4 /dev/loop3 rw\n\
        91 22 7:4 / /data/with\\040blank\\134 rw - ext4 /dev/loop4 rw\n\
        92 22 7:3 / /pods/one rw,relatime - ext4 /dev/flocker-csi/one rw\n\
        93 22 7:4 /dir /pods/two rw,relatime - ext4 /dev/loop4 rw\n";

    #[test]
    fn the_last_line_of_a_device_name_says_where_it_is_mounted() {
        let table = MountTable::parse(TABLE).unwrap();
        let points = mount_points(&table);
        assert_eq!(
            points.get(Path::new("/dev/loop3")),
            Some(&Path::new("/data/flocker/node-1/one")),
            "a mount of the same device under another name does not count"
        );
        assert_eq!(points.get(Path::new("/dev/loop4")), Some(&Path::new("/pods/two")));
        assert_eq!(points.get(Path::new("/dev/loop5")), None);
        for (device, point) in points {
            assert_eq!(table.last_point_of(device.as_os_str()), Some(point));
        }
    }

    #[test]
    fn a_second_mount_is_found_by_the_number_of_the_device() {
        let table = MountTable::parse(TABLE).unwrap();
        let shared = mount_points_of_shared_devices(&table);
        assert!(shared.contains(Path::new("/data/flocker/node-1/one")));
        assert!(shared.contains(Path::new("/data/with blank\\")));
        assert!(!shared.contains(Path::new("/")));
    }
}
