//! Ids by which a later process recognises a mount and a file system.

use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::CWD;
use serde::{Deserialize, Serialize};

use super::entry::Mount;
use super::handle::{MountHandle, open_mount};
use super::lookup::look;
use super::statmount::{self, Described};

/// How long a file system may take to return its id.
const PATIENCE: Duration = Duration::from_secs(1);

/// A mount of this boot of the machine, in the mount namespace in which it was seen.
///
/// The kernel gives neither number to another mount or another namespace before the machine is started again. The mount
/// of another namespace that shows the same has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountId {
    /// The id of the mount (`STATX_MNT_ID_UNIQUE`, Linux 6.8).
    pub mount: u64,
    /// The id of the mount namespace (`STATMOUNT_MNT_NS_ID`, Linux 6.11).
    pub namespace: u64,
}

impl MountId {
    /// Returns the id of an open mount; `None` where the kernel has no such ids.
    pub fn of(mount: &MountHandle) -> Option<MountId> {
        let Described {
            unique_id, namespace, ..
        } = described(mount, "")?;
        Some(MountId {
            mount: unique_id,
            namespace: namespace?,
        })
    }

    /// Whether a mount of the calling thread's namespace is this one; `None` where that is unknown, because this one was
    /// seen in another namespace.
    pub fn is(self, mount: &Mount) -> Option<bool> {
        let here = described(CWD, "/")?.namespace?;
        // While this one exists, no other mount has its other id, which the mount table shows.
        let exists = || statmount::describe(self.mount).is_some_and(|found| found.mount.id == mount.id);
        (here == self.namespace).then(exists)
    }
}

/// Describes the mount that shows a path.
fn described(directory: impl AsFd, path: &str) -> Option<Described> {
    let seen = look(directory, path).ok()?.mounted;
    seen.unique_id().or(seen.holder()).and_then(statmount::describe)
}

/// Returns the id of the file system that the visible mount at its path shows; `None` when it has none, when another mount
/// covers this one, and when it does not answer within a second.
///
/// A number of an anonymous device is free for another file system after the unmount; this id stays with the one.
pub fn file_system_id(mount: &Mount) -> Option<u64> {
    let opened = open_mount(mount).ok()?;
    let (answered, answer) = mpsc::channel();
    // A thread of its own: the server of a file system may never answer.
    let asked = thread::Builder::new().name("fs-id".to_owned()).spawn(move || {
        let status = rustix::fs::fstatvfs(&opened);
        drop(opened);
        answered.send(status.ok().map(|status| status.f_fsid)).ok();
    });
    asked.ok()?;
    let id = answer.recv_timeout(PATIENCE).ok()??;
    (id != 0).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::lookup::layers_at;
    use super::super::testing::{bind, in_own_namespace, tmpfs, unmount};
    use super::*;

    fn mount_at(point: &Path) -> Mount {
        layers_at(point).unwrap().pop().unwrap()
    }

    fn id_at(point: &Path) -> MountId {
        MountId::of(&open_mount(&mount_at(point)).unwrap()).expect("Linux 6.11")
    }

    #[test]
    fn a_mount_is_recognised_and_one_with_its_number_is_not() {
        in_own_namespace(|scratch| {
            let (point, other) = (scratch.join("a"), scratch.join("b"));
            tmpfs(&point);
            bind(&point, &other);
            let (mount, id) = (mount_at(&point), id_at(&point));
            assert_eq!(id.is(&mount), Some(true));
            assert_eq!(id.is(&mount_at(&other)), Some(false));
            unmount(&point);
            tmpfs(&point);
            // Whether the kernel has given the old number to it or not.
            assert_eq!(id.is(&mount_at(&point)), Some(false));
            assert_eq!(id.is(&mount), Some(false));
        });
    }

    #[test]
    fn in_another_namespace_nothing_is_known_of_a_mount() {
        let (point, id) = in_own_namespace(|scratch| {
            tmpfs(&scratch.join("a"));
            (scratch.join("a"), id_at(&scratch.join("a")))
        });
        in_own_namespace(move |scratch| {
            tmpfs(&scratch.join("a"));
            assert_ne!(scratch.join("a"), point);
            assert_eq!(id.is(&mount_at(&scratch.join("a"))), None);
        });
    }

    #[test]
    fn file_systems_have_ids_that_every_mount_of_them_shows() {
        in_own_namespace(|scratch| {
            let (one, two, bound) = (scratch.join("one"), scratch.join("two"), scratch.join("bound"));
            tmpfs(&one);
            tmpfs(&two);
            bind(&one, &bound);
            let id = file_system_id(&mount_at(&one));
            assert!(id.is_some());
            assert_eq!(file_system_id(&mount_at(&bound)), id);
            assert_ne!(file_system_id(&mount_at(&two)), id);
            let covered = mount_at(&one);
            tmpfs(&one);
            assert_eq!(file_system_id(&covered), None, "the path shows another one");
        });
    }
}
