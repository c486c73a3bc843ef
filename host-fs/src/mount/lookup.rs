//! What is mounted at one path, at a cost that does not grow with the number of mounts.
//!
//! The mount table is a text that the kernel writes anew for every reader, a microsecond per mount. Where it has
//! statmount(2) with everything the table tells (Linux 6.13), only the mounts on the path are asked for; elsewhere the
//! table answers. Both give the same.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;

use super::entry::Mount;
use super::statmount::{self, Described};
use super::table::{MountTable, TableError};

/// `STATX_MNT_ID_UNIQUE` of Linux 6.8: an id that is never used again.
const UNIQUE_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Returns the mounts one over the other at a path, the visible one last.
///
/// The path must be absolute and free of symbolic links. A path that does not exist has none.
pub fn layers_at(path: &Path) -> Result<Vec<Mount>, TableError> {
    if let Some(layers) = ask_for_layers(path) {
        return Ok(layers);
    }
    Ok(MountTable::read()?.layers_at(path).into_iter().cloned().collect())
}

/// Returns the mount that holds an existing path: the visible one at it or at the nearest directory above.
///
/// The path must be absolute and free of symbolic links.
pub fn holding(path: &Path) -> Result<Option<Mount>, TableError> {
    let described = look(path).ok().and_then(unique_id).and_then(statmount::describe);
    if let Some(described) = described {
        return Ok(Some(described.mount));
    }
    Ok(MountTable::read()?.holding(path).cloned())
}

/// Asks the kernel for the layers, or answers `None` when only the table can tell.
fn ask_for_layers(path: &Path) -> Option<Vec<Mount>> {
    let status = match look(path) {
        Ok(status) => status,
        Err(Errno::NOENT | Errno::NOTDIR) => return Some(Vec::new()),
        // A dead FUSE or NFS mount cannot be looked at, yet it is there.
        Err(_) => return None,
    };
    if !status.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return None;
    }
    if !status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Some(Vec::new());
    }
    let mut layers = Vec::new();
    let mut next = unique_id(status)?;
    loop {
        let Described {
            mount,
            unique_id,
            unique_parent,
        } = statmount::describe(next)?;
        if mount.point != path {
            // The first one not to be at the path is the one that holds the bottom layer.
            return if layers.is_empty() {
                None
            } else {
                Some(bottom_up(layers))
            };
        }
        layers.push(mount);
        if unique_parent == unique_id {
            return Some(bottom_up(layers));
        }
        next = unique_parent;
    }
}

fn bottom_up(mut layers: Vec<Mount>) -> Vec<Mount> {
    layers.reverse();
    layers
}

/// Looks at a path without following, automounting or asking a server.
fn look(path: &Path) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    statx(CWD, path, flags, UNIQUE_ID | StatxFlags::MNT_ID)
}

fn unique_id(status: Statx) -> Option<u64> {
    StatxFlags::from_bits_retain(status.stx_mask)
        .contains(UNIQUE_ID)
        .then_some(status.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bind, in_own_namespace, share, tmpfs, tmpfs_named};
    use super::*;
    use rustix::mount::{MountFlags, MountPropagationFlags, mount_change, mount_remount};

    /// Compares both ways for one path.
    fn same_by_both_ways(path: &Path) -> Vec<Mount> {
        let table = MountTable::read().unwrap();
        let layers = layers_at(path).unwrap();
        assert_eq!(
            layers.iter().collect::<Vec<_>>(),
            table.layers_at(path),
            "layers at {}",
            path.display()
        );
        assert_eq!(
            holding(path).unwrap().as_ref(),
            table.holding(path),
            "holder of {}",
            path.display()
        );
        layers
    }

    #[test]
    fn every_mount_of_this_machine_is_described_alike_by_both_ways() {
        in_own_namespace(|_| {
            let table = MountTable::read().unwrap();
            for mount in table.mounts() {
                same_by_both_ways(&mount.point);
            }
        });
    }

    #[test]
    fn flags_stacks_propagation_and_odd_names_are_described_alike_by_both_ways() {
        in_own_namespace(|scratch| {
            let (stacked, shared, bound) = (
                scratch.join("a b\\#"),
                scratch.join("shared"),
                scratch.join("bound"),
            );
            tmpfs_named("od d\\#", &stacked);
            tmpfs_named("top", &stacked);
            tmpfs(&shared);
            share(&shared);
            std::fs::create_dir(shared.join("sub")).unwrap();
            bind(&shared.join("sub"), &bound);
            mount_change(&bound, MountPropagationFlags::DOWNSTREAM).unwrap();
            for flags in [
                MountFlags::RDONLY | MountFlags::NOATIME,
                MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::STRICTATIME,
                MountFlags::NODIRATIME | MountFlags::RELATIME,
            ] {
                mount_remount(&bound, MountFlags::BIND | flags, "").unwrap();
                assert_eq!(same_by_both_ways(&bound).len(), 1);
            }
            assert_eq!(same_by_both_ways(&stacked).len(), 2);
            assert_eq!(same_by_both_ways(&shared).len(), 1);
            assert!(same_by_both_ways(&shared.join("sub")).is_empty());
        });
    }

    #[test]
    fn a_missing_path_has_no_layers() {
        in_own_namespace(|scratch| {
            assert!(layers_at(&scratch.join("missing")).unwrap().is_empty());
            assert!(layers_at(&scratch.join("missing/below")).unwrap().is_empty());
        });
    }
}
