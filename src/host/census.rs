//! How many volumes are in which state on this node, from what is known and what the kernel lists: no file system is asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use host_fs::mount::{Mount, MountIndex, MountTable};
use uuid::Uuid;

use super::Host;
use super::evidence::{Origins, Staged, hidden, mount_table};
use super::lifecycle::{AtStaging, Elsewhere, Evidence, Fault, Pinned, alias_view, observe};
use super::mount::{Origin, UsageError, alias_path};
use super::records::{Record, RecordState};
use super::volume_fault::{FaultReason, VolumeFault};
use crate::error::Result;

/// The volumes of this node at one moment. A volume that is staged at several paths, or published at several targets, counts
/// once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VolumeCensus {
    /// Those that are staged.
    pub(crate) staged: usize,
    /// Those of them that are published.
    pub(crate) published: usize,
    /// Those of them of which this process does not hold Flocker's mount.
    pub(crate) unpinned: usize,
    /// The leases that are still to be released.
    pub(crate) releases_pending: usize,
    /// What could not be removed yet after an unmount.
    pub(crate) leftovers: usize,
    /// The staged volumes that are abnormal, by reason; every reason occurs.
    pub(crate) abnormal: BTreeMap<FaultReason, usize>,
}

impl Host {
    /// Counts the volumes. Those whose file system does not answer are known to the caller.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub(crate) fn census(&self, not_answering: &BTreeMap<Uuid, UsageError>) -> Result<VolumeCensus> {
        let table = mount_table()?;
        let index = MountIndex::of(&table);
        let by_dataset = self.staged_by_dataset();
        let mut census = VolumeCensus {
            staged: by_dataset.len(),
            published: self.published(&table, &index, &by_dataset),
            unpinned: 0,
            releases_pending: self
                .records
                .select(|record| record.state == RecordState::ReleasePending)
                .len(),
            leftovers: self.leftovers().all().len(),
            abnormal: FaultReason::ALL.iter().map(|reason| (*reason, 0)).collect(),
        };
        for (dataset, records) in by_dataset {
            census.unpinned += usize::from(self.pins.get(dataset).is_none());
            if let Some(fault) = self.fault_of(&table, &index, records, not_answering) {
                *census.abnormal.entry(fault.reason()).or_insert(0) += 1;
            }
        }
        Ok(census)
    }

    /// Returns the staged volumes that have a fault, and the fault of each.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub(crate) fn faults(
        &self,
        not_answering: &BTreeMap<Uuid, UsageError>,
    ) -> Result<Vec<(Uuid, VolumeFault)>> {
        let table = mount_table()?;
        let index = MountIndex::of(&table);
        let staged = self.staged_by_dataset().into_iter();
        let faults = staged.filter_map(|(dataset, records)| {
            Some((dataset, self.fault_of(&table, &index, records, not_answering)?))
        });
        Ok(faults.collect())
    }

    fn staged_by_dataset(&self) -> BTreeMap<Uuid, Vec<Record>> {
        let staged = self
            .records
            .select(|record| record.boot_id == self.boot_id && record.state == RecordState::Staged);
        let mut by_dataset: BTreeMap<Uuid, Vec<Record>> = BTreeMap::new();
        for record in staged {
            by_dataset.entry(record.dataset_id).or_default().push(record);
        }
        by_dataset
    }

    /// Returns the fault of a volume, as one of its stagings shows it.
    fn fault_of(
        &self,
        table: &MountTable,
        index: &MountIndex<'_>,
        records: Vec<Record>,
        not_answering: &BTreeMap<Uuid, UsageError>,
    ) -> Option<VolumeFault> {
        let dataset = records.first()?.dataset_id;
        if let Some(error) = not_answering.get(&dataset) {
            return Some(VolumeFault::NotAnswering(error.clone()));
        }
        let mut faults = records
            .into_iter()
            .map(|record| self.fault_of_staging(table, index, record));
        faults.find_map(|fault| fault)
    }

    /// Returns the fault of one staging.
    fn fault_of_staging(
        &self,
        table: &MountTable,
        index: &MountIndex<'_>,
        record: Record,
    ) -> Option<VolumeFault> {
        let dataset = record.dataset_id;
        let origins = self.origins(dataset);
        let alias = Staged {
            dataset,
            staging: record.staging_path.clone(),
        }
        .alias();
        let layers = index.layers_at(&alias);
        let mount = layers.iter().rev().find(|mount| origins.own(mount)).copied();
        let state = observe(Evidence {
            record: Some(record),
            boot: self.boot_id,
            alias: alias_view(layers.into_iter().cloned().collect(), |mount| origins.own(mount)),
            pin: self.pinned(index, dataset),
            published_at: None,
            elsewhere: Elsewhere::default(),
        });
        let of_mounts = match state.at_staging {
            // One that cannot be reached is looked for only then.
            AtStaging::Unhealthy(Fault::Unmounted) => Some(match hidden(table, &origins, &alias) {
                Some((mount, over)) => Fault::Hidden { mount, over },
                None => Fault::Unmounted,
            }),
            AtStaging::Unhealthy(fault) => Some(fault),
            // It was unstaged since.
            _ => None,
        };
        self.volume_fault(dataset, of_mounts, mount)
    }

    /// As the pins see themselves, from the table alone.
    fn pinned(&self, index: &MountIndex<'_>, dataset: Uuid) -> Pinned {
        let Some(held) = self.pins.get(dataset) else {
            return Pinned::No;
        };
        let visible = index.layers_at(&held.point).pop();
        let in_place = visible.is_some_and(|mount| (mount.id, mount.device) == (held.id, held.device));
        let held = Box::new(held);
        if in_place {
            Pinned::InPlace(held)
        } else {
            Pinned::Displaced(held)
        }
    }

    /// Counts the datasets that are mounted anywhere but where staging mounts them.
    fn published(
        &self,
        table: &MountTable,
        index: &MountIndex<'_>,
        staged: &BTreeMap<Uuid, Vec<Record>>,
    ) -> usize {
        let origins: BTreeMap<Uuid, Origins> = staged
            .keys()
            .map(|dataset| (*dataset, self.origins(*dataset)))
            .collect();
        let mut by_device: HashMap<_, Vec<Uuid>> = HashMap::new();
        for (dataset, records) in staged {
            let recorded = records.iter().flat_map(|record| record.origins(self.boot_id));
            let devices: BTreeSet<_> = recorded
                .filter_map(Origin::device)
                .chain(self.pins.device(*dataset))
                .collect();
            for device in devices {
                by_device.entry(device).or_default().push(*dataset);
            }
        }
        let mut published = BTreeSet::new();
        for mount in table.mounts() {
            for dataset in by_device.get(&mount.device).into_iter().flatten() {
                let used = origins
                    .get(dataset)
                    .is_some_and(|origins| origins.are_used_by(mount));
                let records = staged.get(dataset).map(Vec::as_slice).unwrap_or_default();
                if used && !is_alias(index, records, mount) {
                    published.insert(*dataset);
                }
            }
        }
        published.len()
    }
}

/// Whether a mount is what staging made, or a copy of that.
fn is_alias(index: &MountIndex<'_>, records: &[Record], mount: &Mount) -> bool {
    records.iter().any(|record| {
        let alias = alias_path(&record.staging_path, record.dataset_id);
        let place = || index.place(index.layers_at(&alias).pop()?);
        alias == mount.point || place().is_some_and(|place| index.place(mount) == Some(place))
    })
}
