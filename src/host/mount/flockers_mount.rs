//! Which mount is the one that Flocker's agent has made for a dataset.
//!
//! Where it is comes from the control service over the network, or from a setting, and is not believed alone.

use std::fmt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::volume::dataset_of;
use host_fs::mount::{Mount, MountTable};

/// Why a mount is not one that Flocker's agent makes for a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotFlockers {
    /// Its directory is not named after the dataset.
    Name,
    /// It shows a directory of its file system, not the whole.
    Part(PathBuf),
    /// Its file system lies on no block device, and is of none of these types.
    Kind(Vec<String>),
    /// A plugin has made it from its device node of the dataset.
    Plugins,
    /// It shows the file system that is mounted at `/`.
    RootFileSystem,
    /// It shows the file system of another dataset.
    OtherDataset {
        /// The other dataset.
        dataset: Uuid,
        /// Where that is mounted.
        at: PathBuf,
    },
}

impl fmt::Display for NotFlockers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotFlockers::Name => formatter.write_str("its directory is not named after the dataset"),
            NotFlockers::Part(root) => write!(
                formatter,
                "it is a mount of a directory, {}, and not of a whole file system",
                root.display()
            ),
            NotFlockers::Kind(known) => write!(
                formatter,
                "its file system lies on no block device of its own and is not of type {}",
                known.join(" or ")
            ),
            NotFlockers::Plugins => formatter.write_str("it is a mount that a plugin of this node has made"),
            NotFlockers::RootFileSystem => {
                formatter.write_str("it shows the root file system of this machine")
            }
            NotFlockers::OtherDataset { dataset, at } => write!(
                formatter,
                "its file system is another dataset's: {dataset} is mounted from that device at {}",
                at.display()
            ),
        }
    }
}

/// Returns whether a path is one at which Flocker's agents mount a dataset.
pub(crate) fn is_named_after(path: &Path, dataset: Uuid) -> bool {
    let name = dataset.to_string();
    path.file_name().is_some_and(|last| last == name.as_str())
}

/// Checks that a mount of the table is one that Flocker's agent makes for a dataset. File systems without a block device
/// have to be of one of these types.
///
/// # Errors
/// The first reason why it is not.
pub(crate) fn check_flockers_mount(
    table: &MountTable,
    mount: &Mount,
    dataset: Uuid,
    agent_file_systems: &[String],
) -> Result<(), NotFlockers> {
    if !is_named_after(&mount.point, dataset) {
        return Err(NotFlockers::Name);
    }
    if mount.root != Path::new("/") {
        return Err(NotFlockers::Part(mount.root.clone()));
    }
    if !mount.device.is_block() && !agent_file_systems.contains(&mount.fs_type) {
        return Err(NotFlockers::Kind(agent_file_systems.to_vec()));
    }
    if mount.device.is_block() && is_named_after(Path::new(&mount.source), dataset) {
        return Err(NotFlockers::Plugins);
    }
    let at_root = table
        .mounts()
        .iter()
        .filter(|other| other.point == Path::new("/"));
    if at_root.into_iter().any(|root| root.device == mount.device) {
        return Err(NotFlockers::RootFileSystem);
    }
    let other = table.by_device(mount.device).find_map(|other| {
        let found = dataset_shown_by(other).filter(|found| *found != dataset)?;
        Some((found, other.point.clone()))
    });
    other.map_or(Ok(()), |(dataset, at)| {
        Err(NotFlockers::OtherDataset { dataset, at })
    })
}

/// Returns the dataset that a mount is named after: by its source if that is a plugin's device node, else by its
/// directory, as Flocker names it.
fn dataset_shown_by(mount: &Mount) -> Option<Uuid> {
    let named = |path: &Path| dataset_of(path.file_name()?.to_str()?);
    let by_point = || named(&mount.point).filter(|_| mount.root == Path::new("/"));
    // Every target that is bound from a plugin's mount keeps the name of its source, whatever its directory is named.
    named(Path::new(&mount.source)).or_else(by_point)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATASET: Uuid = Uuid::from_u128(0x8a);
    const OTHER: Uuid = Uuid::from_u128(0x8b);

    fn line(id: u32, device: &str, root: &str, point: &str, fs_type: &str, source: &str) -> String {
        format!("{id} 1 {device} {root} {point} rw,relatime - {fs_type} {source} rw\n")
    }

    /// Checks the mount of the first line, on a machine with a root file system and these other mounts.
    fn check(mount: &str, others: &[String]) -> Result<(), NotFlockers> {
        let root = line(1, "8:1", "/", "/", "ext4", "/dev/sda1");
        let text = format!("{root}{mount}{}", others.concat());
        let table = MountTable::parse(text.as_bytes()).unwrap();
        check_flockers_mount(&table, &table.mounts()[1], DATASET, &["zfs".to_owned()])
    }

    fn at(device: &str, root: &str, point: &str, fs_type: &str) -> String {
        line(70, device, root, point, fs_type, "/dev/loop1")
    }

    #[test]
    fn only_a_whole_file_system_of_its_own_named_after_the_dataset_is_flockers() {
        let point = format!("/flocker/{DATASET}");
        let (own, other) = (
            format!("/dev/flocker-csi/{DATASET}"),
            format!("/dev/flocker-csi/{OTHER}"),
        );
        let others_point = format!("/flocker/{OTHER}");
        let named = |dataset: Uuid, at: &str| NotFlockers::OtherDataset {
            dataset,
            at: at.into(),
        };
        let good = at("7:1", "/", &point, "ext4");
        let pod = format!("/pods/{OTHER}");
        for (what, mount, more, expected) in [
            ("a block device", good.clone(), vec![], Ok(())),
            ("ZFS", at("0:52", "/", &point, "zfs"), vec![], Ok(())),
            (
                "at another root",
                at("7:1", "/", &format!("/other/{DATASET}"), "ext4"),
                vec![],
                Ok(()),
            ),
            (
                "staged and published",
                good.clone(),
                vec![
                    line(71, "7:1", "/", &format!("/staging/{DATASET}"), "ext4", &own),
                    // A directory that an orchestrator named by an id of its own.
                    line(72, "7:1", "/", &pod, "ext4", &own),
                    line(73, "7:1", "/sub", &pod, "ext4", "/dev/loop1"),
                ],
                Ok(()),
            ),
            (
                "another dataset on another device",
                good.clone(),
                vec![at("7:2", "/", &others_point, "ext4")],
                Ok(()),
            ),
            (
                "a plugin's own",
                line(70, "7:1", "/", &point, "ext4", &own),
                vec![],
                Err(NotFlockers::Plugins),
            ),
            (
                "the root",
                at("8:1", "/", "/", "ext4"),
                vec![],
                Err(NotFlockers::Name),
            ),
            (
                "/proc",
                at("0:5", "/", "/proc", "proc"),
                vec![],
                Err(NotFlockers::Name),
            ),
            (
                "another dataset's",
                at("7:2", "/", &others_point, "ext4"),
                vec![],
                Err(NotFlockers::Name),
            ),
            (
                "a directory",
                at("7:1", "/x", &point, "ext4"),
                vec![],
                Err(NotFlockers::Part("/x".into())),
            ),
            (
                "memory",
                at("0:52", "/", &point, "tmpfs"),
                vec![],
                Err(NotFlockers::Kind(vec!["zfs".to_owned()])),
            ),
            (
                "btrfs",
                at("0:52", "/", &point, "btrfs"),
                vec![],
                Err(NotFlockers::Kind(vec!["zfs".to_owned()])),
            ),
            (
                "a bind of the root",
                at("8:1", "/", &point, "ext4"),
                vec![],
                Err(NotFlockers::RootFileSystem),
            ),
            (
                "a bind of another dataset",
                good.clone(),
                vec![at("7:1", "/", &others_point, "ext4")],
                Err(named(OTHER, &others_point)),
            ),
            (
                "on the device of what is staged of another",
                good,
                vec![line(71, "7:1", "/", "/target", "ext4", &other)],
                Err(named(OTHER, "/target")),
            ),
        ] {
            assert_eq!(check(&mount, &more), expected, "{what}");
        }
    }
}
