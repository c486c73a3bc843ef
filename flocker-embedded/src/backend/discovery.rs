//! What an agent sees of each dataset, read from the kernel's own tables every time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use host_fs::mount::MountTable;
use uuid::Uuid;

use super::error::StepError;
use super::loop_device::has_file;
use super::mounting::mount_points;
use super::storage::Backend;
use crate::options::NodeInfo;
use crate::store::Configuration;

/// A dataset that has a backing volume, as one agent sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) size: u64,
    pub(crate) condition: Condition,
}

/// What an agent sees of all datasets.
#[derive(Debug)]
pub(crate) struct Discovery {
    /// Every dataset that has a backing volume, also those that could not be examined.
    pub(crate) seen: BTreeMap<Uuid, Seen>,
    /// Why datasets could not be examined, without those of other nodes.
    pub(crate) failures: Vec<(Uuid, StepError)>,
}

/// The progress of a dataset on the way to being mounted on a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    /// The volume exists, but is not recorded in the configuration yet.
    Unregistered,
    /// Not attached to any node.
    Detached,
    /// Attached to another node, or by an unknown process.
    AttachedElsewhere,
    /// Attached to a machine that is known to be off.
    AttachedToDead,
    /// Attached here, or by an unknown process, to a device that could not be examined.
    Unexamined,
    /// Attached here; the device has no file system.
    Unformatted(PathBuf),
    /// Attached here, with a file system that is not mounted at its mount path: by the device's name.
    Attached(PathBuf),
    /// Mounted at its mount path.
    Mounted(PathBuf),
}

impl Condition {
    /// Returns the device, if the dataset is attached here.
    pub(crate) fn device(&self) -> Option<&Path> {
        match self {
            Self::Unformatted(device) | Self::Attached(device) | Self::Mounted(device) => Some(device),
            Self::Unregistered
            | Self::Detached
            | Self::AttachedElsewhere
            | Self::AttachedToDead
            | Self::Unexamined => None,
        }
    }
}

impl Backend {
    /// Returns what the agent of `node` sees. `attachments` is the node of each loop device, and `dead` the nodes
    /// that are known to be off. A dataset that cannot be examined affects no other.
    pub(crate) fn discover(
        &self,
        node: &NodeInfo,
        configuration: &Configuration,
        attachments: &BTreeMap<Uuid, Uuid>,
        dead: &BTreeSet<Uuid>,
    ) -> Result<Discovery, StepError> {
        let devices = self.devices().clone();
        let table = MountTable::read()?;
        let mount_points = mount_points(&table);
        let mut seen = BTreeMap::new();
        let mut failures = Vec::new();
        for (dataset, size) in self.volumes.sizes() {
            let owner = attachments.get(&dataset);
            let belongs_here = owner == Some(&node.uuid);
            let device = devices.get(&dataset);
            let mount_point = device.and_then(|device| mount_points.get(device.as_path()));
            let condition = match device {
                Some(device) if belongs_here && mount_point == Some(&&*node.mount_path(dataset)) => {
                    Condition::Mounted(device.clone())
                }
                // Another process may have freed it, and attached another file to it.
                Some(device) => match self.is_attached(dataset, device) {
                    Ok(true) => self.attached_condition(dataset, device, belongs_here),
                    Ok(false) => self.detached_condition(dataset, configuration),
                    Err(_) if owner.is_some() && !belongs_here => Condition::AttachedElsewhere,
                    Err(error) => {
                        failures.push((dataset, error));
                        Condition::Unexamined
                    }
                },
                None => self.detached_condition(dataset, configuration),
            };
            let condition = match condition {
                Condition::AttachedElsewhere if owner.is_some_and(|owner| dead.contains(owner)) => {
                    Condition::AttachedToDead
                }
                condition => condition,
            };
            seen.insert(dataset, Seen { size, condition });
        }
        Ok(Discovery { seen, failures })
    }

    /// Returns the node of every attached dataset that has no record of its node: the one it is mounted on, or else
    /// its configured primary.
    pub(crate) fn unrecorded_attachments(
        &self,
        nodes: &[NodeInfo],
        configuration: &Configuration,
        attachments: &BTreeMap<Uuid, Uuid>,
    ) -> Result<BTreeMap<Uuid, Uuid>, StepError> {
        let table = MountTable::read()?;
        let devices = self.devices().clone();
        let unrecorded = devices
            .into_iter()
            .filter(|(dataset, _)| !attachments.contains_key(dataset));
        let owners = unrecorded.filter_map(|(dataset, device)| {
            let mount_point = table.last_point_of(device.as_os_str());
            let mounted = nodes
                .iter()
                .find(|node| mount_point == Some(&node.mount_path(dataset)));
            let primary = configuration
                .datasets
                .get(&dataset)
                .map(|configured| configured.primary);
            Some((dataset, mounted.map(|node| node.uuid).or(primary)?))
        });
        Ok(owners.collect())
    }

    /// Returns whether a device still has the backing file of a dataset, and forgets the device if not.
    pub(super) fn is_attached(&self, dataset: Uuid, device: &Path) -> Result<bool, StepError> {
        let path = self.volumes.path(dataset);
        let attached = has_file(device, &path).map_err(StepError::io("examine", device))?;
        if !attached {
            self.devices().remove(&dataset);
        }
        Ok(attached)
    }

    fn detached_condition(&self, dataset: Uuid, configuration: &Configuration) -> Condition {
        // What a machine that is off had attached still belongs to it.
        if self.held().contains_key(&dataset) {
            Condition::AttachedElsewhere
        } else if configuration.registered.contains(&dataset) {
            Condition::Detached
        } else {
            Condition::Unregistered
        }
    }

    fn attached_condition(&self, dataset: Uuid, device: &Path, belongs_here: bool) -> Condition {
        if !belongs_here {
            return Condition::AttachedElsewhere;
        }
        // A device that cannot be read counts as unformatted; the next step then fails with the reason.
        if self.is_formatted(dataset, device).unwrap_or(false) {
            Condition::Attached(device.to_owned())
        } else {
            Condition::Unformatted(device.to_owned())
        }
    }

    fn is_formatted(&self, dataset: Uuid, device: &Path) -> Result<bool, StepError> {
        let formatted = || self.formatted.lock().unwrap_or_else(PoisonError::into_inner);
        if formatted().contains(&dataset) {
            return Ok(true);
        }
        let _held = self.hold(dataset, device)?;
        let found = self.programs.has_file_system(device)?;
        if found {
            formatted().insert(dataset);
        }
        Ok(found)
    }
}
