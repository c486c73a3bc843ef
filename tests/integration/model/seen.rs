//! The observed state of the system: Flocker's lists, the mount table, the plugins' descriptors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::calls::{Access, NODES};
use super::fixture::Fixture;
use crate::support::mounts::{Mount, Mounts};

/// A dataset as Flocker's configuration has it.
#[derive(Clone, Debug)]
pub(super) struct Configured {
    pub(super) id: Uuid,
    /// `None` once it is deleted.
    pub(super) name: Option<String>,
    pub(super) deleted: bool,
    pub(super) size: u64,
    pub(super) profile: Option<String>,
}

/// A mount of the plugin.
#[derive(Clone, Debug)]
pub(super) struct OurMount {
    pub(super) node: usize,
    /// The dataset whose device node it is mounted from; `None` for a mount of another source.
    pub(super) dataset: Option<Uuid>,
    pub(super) mount: Mount,
}

impl OurMount {
    pub(super) fn access(&self) -> Access {
        if self.mount.options.iter().any(|option| option == "ro") {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        }
    }
}

/// A mount that Flocker's agent made.
#[derive(Clone, Debug)]
pub(super) struct FlockersMount {
    pub(super) node: usize,
    pub(super) dataset: Uuid,
    /// The path at which the agent believes the device to be mounted.
    pub(super) believed: PathBuf,
    pub(super) mount: Mount,
}

/// The observed state at one moment.
pub(super) struct Seen {
    pub(super) configured: Vec<Configured>,
    /// The node that has the lease; `None` for an unknown node.
    pub(super) leases: BTreeMap<Uuid, Option<usize>>,
    pub(super) ours: Vec<OurMount>,
    pub(super) flockers: Vec<FlockersMount>,
    /// The mounts on which each plugin has open descriptors; `None` where no plugin runs.
    held: [Option<BTreeSet<u64>>; NODES],
}

impl Fixture {
    pub(super) async fn look(&self) -> Seen {
        let datasets = self.client.list_datasets().await.unwrap().datasets;
        let configured = datasets.into_iter().filter_map(|dataset| {
            Some(Configured {
                id: dataset.dataset_id,
                name: dataset.metadata.get("name").cloned(),
                deleted: dataset.deleted,
                size: dataset.maximum_size?,
                profile: dataset.metadata.get("clusterhq:flocker:profile").cloned(),
            })
        });
        let leases = self.client.list_leases().await.unwrap();
        let leases = leases
            .into_iter()
            .map(|lease| (lease.dataset_id, self.number_of(lease.node_uuid)));
        let table = Mounts::read();
        Seen {
            configured: configured.collect(),
            leases: leases.collect(),
            ours: (0..NODES)
                .flat_map(|node| self.our_mounts(&table, node))
                .collect(),
            flockers: (0..NODES)
                .flat_map(|node| self.flockers_mounts(&table, node))
                .collect(),
            held: std::array::from_fn(|node| self.process(node).map(mounts_held_by)),
        }
    }

    fn our_mounts(&self, table: &Mounts, node: usize) -> Vec<OurMount> {
        let machine = &self.machines[node];
        let devices = &machine.config.plugin.device_dir;
        let ours = table.below(&machine.path("")).into_iter();
        ours.map(|mount| OurMount {
            node,
            dataset: dataset_of(devices, Path::new(&mount.source)),
            mount,
        })
        .collect()
    }

    fn flockers_mounts(&self, table: &Mounts, node: usize) -> Vec<FlockersMount> {
        let root = &self.machines[node].config.node.mount_root;
        let believed = table.seen_by_the_agent();
        let mounts = table.below(root).into_iter();
        mounts
            .filter_map(|mount| {
                Some(FlockersMount {
                    node,
                    dataset: dataset_of(root, &mount.point)?,
                    believed: believed[mount.source.as_str()].to_owned(),
                    mount,
                })
            })
            .collect()
    }
}

impl Seen {
    /// Whether the plugin of a node holds Flocker's mount of a dataset there; `None` where no plugin runs.
    pub(super) fn is_pinned(&self, node: usize, dataset: Uuid) -> Option<bool> {
        let held = self.held[node].as_ref()?;
        let mount = |mount: &&FlockersMount| (mount.node, mount.dataset) == (node, dataset);
        Some(
            self.flockers
                .iter()
                .filter(mount)
                .any(|flockers| held.contains(&flockers.mount.id)),
        )
    }
}

/// Returns the dataset whose id is the name of an entry of `directory`.
fn dataset_of(directory: &Path, path: &Path) -> Option<Uuid> {
    path.strip_prefix(directory).ok()?.to_str()?.parse().ok()
}

/// Returns the ids of the mounts on which a process has descriptors.
fn mounts_held_by(process: u32) -> BTreeSet<u64> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap();
    let ids = descriptors.filter_map(|descriptor| {
        // It may have been closed by now.
        let text = fs::read_to_string(descriptor.ok()?.path()).ok()?;
        let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
        id.trim().parse().ok()
    });
    ids.collect()
}
