//! Where loop devices are mounted: the mount table, which is read again only when it has changed.
//!
//! With a thousand volumes a reading takes milliseconds, and an agent observes a dozen times in the life of a volume.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host_fs::mount::{MountEvents, MountTable};

use super::error::StepError;
use super::loop_device::DEVICE;
use super::mounting::mount_points;

const MOUNT_TABLE: &str = "/proc/thread-self/mountinfo";

/// The mount point of each loop device that is mounted, by the device's name.
pub(super) type LoopMounts = HashMap<PathBuf, PathBuf>;

/// The mounts of loop devices in the mount namespace of the thread that asks first.
#[derive(Debug, Default)]
pub(super) struct FollowedMounts(Mutex<Option<Followed>>);

#[derive(Debug)]
struct Followed {
    /// Reports whatever has changed since `mounts` was begun to be read.
    events: MountEvents,
    mounts: Arc<LoopMounts>,
}

impl FollowedMounts {
    /// Returns the mounts as they are now. Blocks.
    pub(super) fn read(&self) -> Result<Arc<LoopMounts>, StepError> {
        let mut followed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unwatched = |error| StepError::io("follow", Path::new(MOUNT_TABLE))(error);
        let events = match followed.take() {
            Some(known) => {
                // Each change is reported once, and before it is read: one that comes later is reported the next time.
                if !known.events.changed_within(Duration::ZERO).map_err(unwatched)? {
                    let mounts = Arc::clone(&known.mounts);
                    *followed = Some(known);
                    return Ok(mounts);
                }
                known.events
            }
            None => MountEvents::of_this_thread().map_err(unwatched)?,
        };
        let table = MountTable::read()?;
        let is_loop = |device: &Path| {
            device
                .as_os_str()
                .as_encoded_bytes()
                .starts_with(DEVICE.as_bytes())
        };
        let mounts = mount_points(&table).into_iter();
        let mounts: LoopMounts = mounts
            .filter(|(device, _)| is_loop(device))
            .map(|(device, point)| (device.to_owned(), point.to_owned()))
            .collect();
        let mounts = Arc::new(mounts);
        *followed = Some(Followed {
            events,
            mounts: Arc::clone(&mounts),
        });
        Ok(mounts)
    }
}

#[cfg(test)]
mod tests {
    use host_fs::mount::testing::in_own_namespace;
    use rustix::mount::{MountFlags, mount};

    use super::*;

    #[test]
    fn the_table_is_read_again_exactly_when_it_has_changed() {
        in_own_namespace(|directory| {
            let [one, two] = ["one", "two"].map(|name| directory.join(name));
            let followed = FollowedMounts::default();
            // A file system without a device may have any source.
            let attach = |source: &str, point: &Path| {
                std::fs::create_dir(point).unwrap();
                mount(source, point, "tmpfs", MountFlags::empty(), None).unwrap();
            };
            let point_of = |mounts: &LoopMounts, device: &str| mounts.get(Path::new(device)).cloned();

            attach("/dev/loop901", &one);
            let first = followed.read().unwrap();
            assert_eq!(point_of(&first, "/dev/loop901"), Some(one.clone()));
            let same = followed.read().unwrap();
            assert!(
                Arc::ptr_eq(&first, &same),
                "it has not changed, and was read again"
            );

            attach("/dev/loop902", &two);
            let second = followed.read().unwrap();
            assert_eq!(point_of(&second, "/dev/loop902"), Some(two.clone()));
            assert_eq!(point_of(&second, "/dev/loop901"), Some(one.clone()));

            host_fs::mount::testing::unmount(&one);
            let third = followed.read().unwrap();
            assert_eq!(point_of(&third, "/dev/loop901"), None);
            assert_eq!(point_of(&third, "/dev/loop902"), Some(two.clone()));
            assert!(Arc::ptr_eq(&third, &followed.read().unwrap()));
            host_fs::mount::testing::unmount(&two);
            assert!(followed.read().unwrap().is_empty());
        });
    }
}
