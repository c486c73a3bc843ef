//! Resolution of volume ids to datasets without Flocker, from records or, where they were lost, from mounts.

use std::path::Path;

use host_fs::mount::Mount;
use uuid::Uuid;

use super::Host;
use super::evidence::mount_table;
use super::mount::alias_path;
use super::records::Record;
use crate::error::Result;
use crate::volume::{VolumeLabels, dataset_of};

impl Host {
    /// Returns the dataset that is, or was, staged at a path under this volume id.
    pub(crate) fn recorded_dataset(&self, staging: &Path, volume_id: &str) -> Option<Uuid> {
        self.recorded_at(staging, volume_id)
            .map(|record| record.dataset_id)
    }

    /// Returns what people call a volume that is staged here.
    pub(crate) fn volume_labels(&self, dataset: Uuid) -> Option<VolumeLabels> {
        let recorded = self.records.of(dataset);
        recorded.iter().find_map(Record::labels)
    }

    /// Returns the dataset that is staged, or being staged, at a path under this volume id.
    pub(crate) fn staged_dataset(&self, staging: &Path, volume_id: &str) -> Option<Uuid> {
        self.recorded_at(staging, volume_id)
            .filter(|record| record.may_be_mounted(self.boot_id))
            .map(|record| record.dataset_id)
    }

    /// Returns the dataset that this volume id stands for at a path, where it is published, or staged.
    ///
    /// A name may have stood for several datasets in turn: the one that is mounted there counts, or else the one that
    /// is staged. Where records were lost, the mount's source names its dataset.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub(crate) fn dataset_at(&self, path: &Path, volume_id: &str) -> Result<Option<Uuid>> {
        if let Some(dataset) = dataset_of(volume_id) {
            return Ok(Some(dataset));
        }
        let known = self.datasets_named(volume_id);
        if let [only] = known[..] {
            return Ok(Some(only));
        }
        let table = mount_table()?;
        let mounted = |dataset: Uuid| {
            let (alias, origins) = (alias_path(path, dataset), self.origins(dataset));
            let mut here = table
                .mounts()
                .iter()
                .filter(|mount| mount.point == path || mount.point == alias);
            here.any(|mount| origins.own(mount))
        };
        let unrecorded = || {
            let ours = table
                .mounts()
                .iter()
                .filter_map(|mount| self.dataset_of_mount(mount));
            let mut lost = ours.filter(|dataset| mounted(*dataset) && self.records.of(*dataset).is_empty());
            lost.next()
        };
        let first = known.first().copied();
        let found = known.into_iter().find(|dataset| mounted(*dataset));
        Ok(found.or(first).or_else(unrecorded))
    }

    /// Returns the datasets that are mounted for a staging path without a record of it, and those whose records for it
    /// cannot be read.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub(crate) fn unrecorded_at(&self, staging: &Path) -> Result<Vec<Uuid>> {
        let table = mount_table()?;
        let ours = table.mounts().iter().filter_map(|mount| {
            let dataset = self.dataset_of_mount(mount)?;
            (mount.point == alias_path(staging, dataset)).then_some(dataset)
        });
        let mut unrecorded: Vec<_> = ours
            .filter(|dataset| self.records.get(*dataset, staging).is_none())
            .chain(self.records.unreadable_at(staging))
            .collect();
        unrecorded.sort_unstable();
        unrecorded.dedup();
        Ok(unrecorded)
    }

    /// Returns the dataset of a mount of the plugin, found by the name of the device node that it was made from.
    pub(super) fn dataset_of_mount(&self, mount: &Mount) -> Option<Uuid> {
        let source = Path::new(&mount.source);
        let dataset = dataset_of(source.file_name()?.to_str()?)?;
        let is_node = self.aliases.nodes().path(dataset) == source;
        (is_node && self.origins(dataset).own(mount)).then_some(dataset)
    }

    fn recorded_at(&self, staging: &Path, volume_id: &str) -> Option<Record> {
        let at = |record: &Record| record.staging_path == staging && record.volume_id == volume_id;
        // A dataset that is staged precedes one that was: the name may stand for a new dataset now.
        self.records
            .select(at)
            .into_iter()
            .max_by_key(|record| record.may_be_mounted(self.boot_id))
    }

    /// Returns the datasets that are, or were, staged under a name, at any path; staged ones first.
    fn datasets_named(&self, name: &str) -> Vec<Uuid> {
        let mut recorded = self.records.select(|record| record.volume_id == name);
        recorded.sort_by_key(|record| !record.may_be_mounted(self.boot_id));
        let mut datasets = Vec::new();
        for Record { dataset_id, .. } in recorded {
            if !datasets.contains(&dataset_id) {
                datasets.push(dataset_id);
            }
        }
        datasets
    }
}
