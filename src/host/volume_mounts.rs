//! The mounts of one volume on this machine, with what is wrong with each and what uses it.

use host_fs::mount::{Mount, MountHolder, find_holders};
use uuid::Uuid;

use super::local_view::LocalView;
use super::mount::{FileSystemFault, file_system_fault};

/// How many mounts are searched for processes: a search may take two seconds.
const SEARCHED: usize = 5;

/// A mount of a volume.
#[derive(Debug)]
pub(crate) struct VolumeMount {
    /// The mount.
    pub(crate) mount: Mount,
    /// Whether Flocker's agent has made it.
    pub(crate) is_flockers: bool,
    /// What is wrong with its file system.
    pub(crate) fault: Option<FileSystemFault>,
    /// The processes and mounts that use it, beside this process.
    pub(crate) holders: Vec<MountHolder>,
}

impl LocalView {
    /// Returns the mounts of a dataset, Flocker's first. Blocks for ten seconds at most.
    pub(crate) fn mounts_with_holders(&self, dataset: Uuid) -> Vec<VolumeMount> {
        let mut mounts: Vec<_> = self
            .mounts_of(dataset)
            .map(|mount| (!self.is_flockers(mount, dataset), mount))
            .collect();
        mounts.sort_by_key(|(is_ours, mount)| (*is_ours, mount.id));
        let own = std::process::id();
        let is_other =
            |holder: &MountHolder| !matches!(holder, MountHolder::Process { pid, .. } if *pid == own);
        let examine = |(place, (is_ours, mount)): (usize, (bool, &Mount))| VolumeMount {
            fault: file_system_fault(mount),
            holders: if place < SEARCHED {
                let found = find_holders(mount);
                found
                    .as_slice()
                    .iter()
                    .filter(|holder| is_other(holder))
                    .cloned()
                    .collect()
            } else {
                Vec::new()
            },
            is_flockers: !is_ours,
            mount: mount.clone(),
        };
        mounts.into_iter().enumerate().map(examine).collect()
    }
}
