//! What an agent sees of each dataset, read from the kernel's own tables every time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use host_fs::mount::MountTable;
use uuid::Uuid;

use super::error::StepError;
use super::loop_device::{Survey, has_file};
use super::storage::Backend;
use super::volumes::{Stage, VolumeFile};
use crate::options::NodeInfo;
use crate::store::{Configuration, Storage, StorageRecords};

/// A dataset that has a backing volume, as one agent sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) size: u64,
    pub(crate) condition: Condition,
}

/// What an agent sees of all datasets.
#[derive(Debug)]
pub(crate) struct Discovery {
    /// Every dataset that has a backing volume, also those that could not be examined, and those of this node whose
    /// volume must not be made.
    pub(crate) seen: BTreeMap<Uuid, Seen>,
    /// Why datasets could not be examined, without those of other nodes.
    pub(crate) failures: Vec<(Uuid, StepError)>,
}

/// The progress of a dataset on the way to being mounted on a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    /// Its volume is missing, or is not the one that was recorded: no step is possible until that has changed.
    Unavailable,
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
    /// Attached here; the volume has never been formatted.
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
            Self::Unavailable
            | Self::Unregistered
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
    ///
    /// `records` is called after the backing files have been listed: a volume is recorded before it exists.
    pub(crate) fn discover(
        &self,
        node: &NodeInfo,
        configuration: &Configuration,
        records: impl FnOnce() -> StorageRecords,
        dead: &BTreeSet<Uuid>,
    ) -> Result<Discovery, StepError> {
        let devices = self.devices().clone();
        let mounts = self.mounts.read()?;
        let mut files = self.volumes.files();
        let records = records();
        let missing = self.find_again(&mut files, &records);
        let unavailable = self.unavailable(node, configuration, &files, &missing, &records);
        let mut seen = BTreeMap::new();
        let mut failures = Vec::new();
        for (dataset, VolumeFile { size, stage }) in files {
            if unavailable.contains_key(&dataset) || must_be_begun(dataset, stage, configuration, &records) {
                continue;
            }
            let owner = records.attachments.get(&dataset);
            let belongs_here = owner == Some(&node.uuid);
            let device = devices.get(&dataset);
            let mount_point = device.and_then(|device| mounts.get(device.as_path()));
            let condition = match device {
                Some(device) if belongs_here && mount_point == Some(&node.mount_path(dataset)) => {
                    Condition::Mounted(device.clone())
                }
                // Another process may have freed it, and attached another file to it.
                Some(device) => match self.is_attached(dataset, device) {
                    Ok(true) if !belongs_here => Condition::AttachedElsewhere,
                    Ok(true) if stage == Stage::Formatting => Condition::Unformatted(device.clone()),
                    Ok(true) => Condition::Attached(device.clone()),
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
        for (dataset, error) in unavailable {
            let condition = Condition::Unavailable;
            seen.insert(dataset, Seen { size: 0, condition });
            failures.push((dataset, error));
        }
        Ok(Discovery { seen, failures })
    }

    /// Adds the volumes that have appeared to `files`, and returns the datasets whose volume is missing.
    fn find_again(&self, files: &mut BTreeMap<Uuid, VolumeFile>, records: &StorageRecords) -> BTreeSet<Uuid> {
        let mut missing = BTreeSet::new();
        for dataset in records.formatted() {
            let stage = files.get(&dataset).map(|file| file.stage);
            if stage == Some(Stage::Formatted) {
                continue;
            }
            match self.volumes.find(dataset) {
                Ok(file) => {
                    files.insert(dataset, file);
                }
                Err(_) => {
                    missing.insert(dataset);
                }
            }
        }
        missing
    }

    /// Returns why the agent of `node` must neither make nor use the volumes of datasets that it is to have.
    fn unavailable(
        &self,
        node: &NodeInfo,
        configuration: &Configuration,
        files: &BTreeMap<Uuid, VolumeFile>,
        missing: &BTreeSet<Uuid>,
        records: &StorageRecords,
    ) -> BTreeMap<Uuid, StepError> {
        let none_is_found = !missing.is_empty() && missing.len() == records.formatted().count();
        let mut survey = None;
        let here = configuration.datasets.iter();
        let here = here.filter(|(_, dataset)| !dataset.deleted && dataset.primary == node.uuid);
        let reasons = here.filter_map(|(dataset, _)| {
            let stage = files.get(dataset).map(|file| file.stage);
            let error = match records.storage.get(dataset) {
                Some(Storage::Formatted { .. }) if missing.contains(dataset) => {
                    let survey = survey.get_or_insert_with(Survey::new);
                    self.describe_missing(*dataset, survey.as_ref().ok())
                }
                None if stage == Some(Stage::Formatted) => StepError::Unknown(self.volumes.path(*dataset)),
                None | Some(Storage::Formatting) if stage.is_none() && none_is_found => {
                    StepError::NotMounted {
                        directory: self.volumes.directory().to_owned(),
                        missing: missing.len(),
                    }
                }
                _ => return None,
            };
            Some((*dataset, error))
        });
        reasons.collect()
    }

    /// Returns what is wrong with a missing volume, and which loop device still has it.
    fn describe_missing(&self, dataset: Uuid, survey: Option<&Survey>) -> StepError {
        let path = self.volumes.path_at(dataset, Stage::Formatted);
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return StepError::NotAFile(path);
        }
        let device = survey.and_then(|survey| survey.device_of_deleted(&path));
        let device = device.map(Path::to_owned);
        StepError::Missing { path, device }
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
}

/// Returns whether the file of a dataset is one that an earlier run has made, and the state file of which has been
/// replaced by an older one: it is recorded again before it is used.
fn must_be_begun(
    dataset: Uuid,
    stage: Stage,
    configuration: &Configuration,
    records: &StorageRecords,
) -> bool {
    let configured = configuration.datasets.get(&dataset);
    stage == Stage::Formatting
        && !records.storage.contains_key(&dataset)
        && configured.is_some_and(|configured| !configured.deleted)
}
