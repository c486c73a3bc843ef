//! What is mounted at one path, at a cost that does not grow with the number of mounts.
//!
//! The mount table is a text that the kernel writes again for every reader, a microsecond per mount. Where the kernel has
//! statmount(2) with everything that the table holds (Linux 6.13), only the mounts on the path are read; elsewhere the
//! whole table is. Both give the same.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::path::Arg;

use super::entry::Mount;
use super::statmount::{self, Described};
use super::table::{MountTable, TableError};

/// `STATX_MNT_ID_UNIQUE` of Linux 6.8: an id that is never used again.
const UNIQUE_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// What one statx(2) shows of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) file_type: FileType,
    pub(super) mounted: Mounted,
}

/// Whether something is mounted at a path, as far as statx(2) shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounted {
    /// Nothing; the unique id is that of the mount that holds the path.
    No(Option<u64>),
    /// A mount, with its unique id.
    Yes(u64),
    /// The kernel does not say (before Linux 6.8).
    Unknown,
}

impl Mounted {
    /// Returns the unique id of the mount that holds a path where nothing is mounted.
    pub(super) fn holder(self) -> Option<u64> {
        match self {
            Mounted::No(holder) => holder,
            Mounted::Yes(_) | Mounted::Unknown => None,
        }
    }

    /// Returns the unique id of the mount at the path.
    pub(super) fn unique_id(self) -> Option<u64> {
        match self {
            Mounted::Yes(id) => Some(id),
            Mounted::No(_) | Mounted::Unknown => None,
        }
    }
}

/// The visible mount at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visible {
    pub(super) mount: Mount,
    /// Its unique id and that of the mount below it, where the kernel has such ids.
    pub(super) unique: Option<UniqueIds>,
}

/// Ids that are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UniqueIds {
    pub(super) own: u64,
    pub(super) parent: u64,
}

impl Visible {
    /// Returns whether both are one mount.
    pub(super) fn is_same(&self, other: &Visible) -> bool {
        match (self.unique, other.unique) {
            (Some(one), Some(other)) => one.own == other.own,
            _ => (self.mount.id, self.mount.device) == (other.mount.id, other.mount.device),
        }
    }
}

/// Returns the visible mount at a path, if it is a mount point.
///
/// The path must be absolute and free of symbolic links. Nothing is mounted at a path that does not exist.
///
/// # Errors
/// The mount table cannot be read.
pub fn visible_at(path: &Path) -> Result<Option<Mount>, TableError> {
    let top = top_of(look(CWD, path), path)?.map(|top| top.mount);
    // A symbolic link in the path leads to a mount that the table has at another path.
    Ok(top.filter(|mount| mount.point == path))
}

/// Returns the mounts one over the other at a path, the visible one last.
///
/// The path must be absolute and free of symbolic links. A path that does not exist has none.
///
/// # Errors
/// The mount table cannot be read.
pub fn layers_at(path: &Path) -> Result<Vec<Mount>, TableError> {
    if let Some(layers) = describe_layers(path) {
        return Ok(layers);
    }
    Ok(MountTable::read()?.layers_at(path).into_iter().cloned().collect())
}

/// Returns the mount that holds an existing path: the visible one at it or at the nearest directory above.
///
/// The path must be absolute and free of symbolic links.
///
/// # Errors
/// The mount table cannot be read.
pub fn holding(path: &Path) -> Result<Option<Mount>, TableError> {
    let mounted = look(CWD, path).map_or(Mounted::Unknown, |seen| seen.mounted);
    let described = mounted
        .unique_id()
        .or(mounted.holder())
        .and_then(statmount::describe);
    if let Some(described) = described {
        return Ok(Some(described.mount));
    }
    Ok(MountTable::read()?.holding(path).cloned())
}

/// Returns the visible mount at a path that was examined.
pub(super) fn top_of(seen: Result<Seen, Errno>, path: &Path) -> Result<Option<Visible>, TableError> {
    match seen {
        Ok(seen) => top(seen.mounted, path),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        // A dead FUSE or NFS mount refuses statx(2), yet it exists.
        Err(_) => top(Mounted::Unknown, path),
    }
}

/// The kernel describes no single mount here; the mount table shows them all.
#[derive(Debug)]
pub(super) struct OnlyInTable;

/// Returns the visible mount where statx(2) has shown this.
pub(super) fn described(mounted: Mounted) -> Result<Option<Visible>, OnlyInTable> {
    let id = match mounted {
        Mounted::No(_) => return Ok(None),
        Mounted::Yes(id) => id,
        Mounted::Unknown => return Err(OnlyInTable),
    };
    let Described {
        mount,
        unique_id,
        unique_parent,
        ..
    } = statmount::describe(id).ok_or(OnlyInTable)?;
    let unique = Some(UniqueIds {
        own: unique_id,
        parent: unique_parent,
    });
    Ok(Some(Visible { mount, unique }))
}

/// Returns the visible mount at a path of which statx(2) has shown this.
fn top(mounted: Mounted, path: &Path) -> Result<Option<Visible>, TableError> {
    if let Ok(described) = described(mounted) {
        return Ok(described);
    }
    let mount = MountTable::read()?.layers_at(path).pop().cloned();
    Ok(mount.map(|mount| Visible { mount, unique: None }))
}

/// Reads the layers one by one, or returns `None` when only the table shows them.
fn describe_layers(path: &Path) -> Option<Vec<Mount>> {
    let mut next = match look(CWD, path).map(|seen| seen.mounted) {
        Err(Errno::NOENT | Errno::NOTDIR) | Ok(Mounted::No(_)) => return Some(Vec::new()),
        // A dead FUSE or NFS mount refuses statx(2), yet it exists.
        Err(_) | Ok(Mounted::Unknown) => return None,
        Ok(Mounted::Yes(id)) => id,
    };
    let mut layers = Vec::new();
    loop {
        let Described {
            mount,
            unique_id,
            unique_parent,
            ..
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

/// Examines a name in a directory, or at the directory itself for an empty name, without following, automounting or
/// asking a server.
pub(super) fn look(directory: impl AsFd, name: impl Arg) -> Result<Seen, Errno> {
    let flags =
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC | AtFlags::EMPTY_PATH;
    let status = statx(
        directory,
        name,
        flags,
        UNIQUE_ID | StatxFlags::MNT_ID | StatxFlags::TYPE,
    )?;
    let id = StatxFlags::from_bits_retain(status.stx_mask)
        .contains(UNIQUE_ID)
        .then_some(status.stx_mnt_id);
    let root = StatxAttributes::MOUNT_ROOT;
    let mounted = match (status.stx_attributes_mask.contains(root), id) {
        (true, id) if !status.stx_attributes.contains(root) => Mounted::No(id),
        (true, Some(id)) => Mounted::Yes(id),
        _ => Mounted::Unknown,
    };
    Ok(Seen {
        file_type: FileType::from_raw_mode(status.stx_mode.into()),
        mounted,
    })
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
        assert_eq!(visible_at(path).unwrap().as_ref(), layers.last());
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
