//! Staged volumes whose lease this node no longer holds: whether they are in use, and letting go of those that are not.

use std::collections::BTreeMap;

use host_fs::mount::{FileSystemUse, Mount};
use uuid::Uuid;

use super::evidence::{Staged, mount_table};
use super::lease_conditions::LeaseCondition;
use super::lifecycle::Goal;
use super::{Host, Unmounted};
use crate::error::Result;

/// A dataset that this process has staged, or is staging, according to its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordedDataset {
    pub(crate) dataset: Uuid,
    /// The nodes under whose leases it is staged; empty where old records do not name them.
    pub(crate) nodes: Vec<Uuid>,
    /// Whether staging took the lease.
    pub(crate) takes_lease: bool,
}

/// What uses a staged volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VolumeUse {
    /// This process has neither mounted nor pinned it.
    NotHeld,
    /// Nothing but this process and Flocker has it.
    Unused,
    /// It is in use, in words. What cannot be read counts as a use.
    Used(String),
}

impl Host {
    /// Returns the datasets that are staged in this boot, ordered by id.
    pub(crate) fn recorded_datasets(&self) -> Vec<RecordedDataset> {
        let mut datasets: BTreeMap<Uuid, RecordedDataset> = BTreeMap::new();
        for record in self.records.select(|record| record.may_be_mounted(self.boot_id)) {
            let entry = datasets
                .entry(record.dataset_id)
                .or_insert_with(|| RecordedDataset {
                    dataset: record.dataset_id,
                    nodes: Vec::new(),
                    takes_lease: false,
                });
            entry.takes_lease |= record.takes_lease;
            entry.nodes.extend(record.node_id);
        }
        datasets.into_values().collect()
    }

    /// Notes what a read of the leases showed about a staged volume, and returns whether that is new.
    pub(crate) fn note_lease(&self, dataset: Uuid, condition: Option<LeaseCondition>) -> bool {
        self.leases.set(dataset, condition)
    }

    /// Forgets what was noted about volumes that are no longer staged.
    pub(crate) fn forget_leases_of_unstaged(&self) {
        self.leases.retain(|dataset| {
            self.records
                .of(dataset)
                .iter()
                .any(|record| record.may_be_mounted(self.boot_id))
        });
    }

    /// Returns what was noted last about the lease of a staged volume, if that is not this node's.
    pub(crate) fn lease_condition(&self, dataset: Uuid) -> Option<LeaseCondition> {
        self.leases.get(dataset)
    }

    /// Returns what uses a staged volume apart from this process.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub(crate) fn use_of(&self, dataset: Uuid) -> Result<VolumeUse> {
        let table = mount_table()?;
        let origins = self.origins(dataset);
        let pinned = self.pins.get(dataset);
        let mut aliases: Vec<&Mount> = Vec::new();
        for mount in table.mounts().iter().filter(|mount| origins.own(mount)) {
            if !self.is_alias(&table, dataset, mount) {
                return Ok(VolumeUse::Used(format!(
                    "it is published at {}",
                    mount.point.display()
                )));
            }
            aliases.push(mount);
        }
        let Some(device) = aliases
            .first()
            .map(|alias| alias.device)
            .or(pinned.as_ref().map(|pin| pin.device))
        else {
            return Ok(VolumeUse::NotHeld);
        };
        if let Some(other) = aliases.iter().find(|alias| alias.device != device) {
            return Ok(VolumeUse::Used(format!(
                "it is staged from a second device: {other}"
            )));
        }
        let mut known: Vec<u64> = aliases.iter().map(|alias| alias.id).collect();
        let flockers = pinned.map(|pinned| pinned.id).or_else(|| {
            let usual = self.settings.mount_root.join(dataset.to_string());
            let top = table.layers_at(&usual).pop()?;
            (top.device == device).then_some(top.id)
        });
        known.extend(flockers);
        let subject = FileSystemUse {
            device: Some(device),
            node_name: dataset.to_string().into(),
            known,
            ..FileSystemUse::default()
        };
        Ok(self
            .uses
            .find(&subject)
            .map_or(VolumeUse::Unused, VolumeUse::Used))
    }

    /// Unmounts a volume that nothing uses from every staging path, and removes device node, pin and records. Its lease,
    /// which is no longer this node's, is left alone.
    ///
    /// # Errors
    /// Those of [`Self::unmount_alias`]; what was unmounted before stays unmounted.
    pub(crate) fn let_go(&self, dataset: Uuid) -> Result<()> {
        for record in self.records.of(dataset) {
            let staged = Staged {
                dataset,
                staging: record.staging_path.clone(),
            };
            // The last unmount may have ended more than one staging.
            let is_over = self.records.get(dataset, &staged.staging).is_none();
            if is_over || !record.may_be_mounted(self.boot_id) {
                continue;
            }
            if let Unmounted::Then(ended) = self.unmount_alias(&staged, Goal::Unstage)? {
                if ended.unpin {
                    self.unpin(dataset);
                }
                self.clean_up(&ended);
                // Their lease is no longer this node's, so it is not released.
                for staged in &ended.leases {
                    self.forget(staged);
                }
            }
        }
        Ok(())
    }

    /// Unmounts a volume from a staging path, where it is about to be staged again. Its record stays, and names the lease.
    ///
    /// # Errors
    /// Those of [`Self::unmount_alias`].
    pub(crate) fn unmount_to_restage(&self, staged: &Staged) -> Result<()> {
        if let Unmounted::Then(ended) = self.unmount_alias(staged, Goal::Unstage)?
            && ended.unpin
        {
            self.unpin(staged.dataset);
        }
        Ok(())
    }

    /// Whether this plugin or another one of this node has a record of a dataset, or a mount of it beside Flocker's.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub(crate) fn is_known_here(&self, dataset: Uuid) -> Result<bool> {
        if !self.records.of(dataset).is_empty() || self.pins.get(dataset).is_some() {
            return Ok(true);
        }
        let table = mount_table()?;
        let origins = self.origins(dataset);
        let flockers = self.settings.mount_root.join(dataset.to_string());
        let device = table.layers_at(&flockers).last().map(|mount| mount.device);
        Ok(table.mounts().iter().any(|mount| {
            origins.are_used_by(mount) || device == Some(mount.device) && mount.point != flockers
        }))
    }

    /// Whether a record of a dataset exists, in whatever state.
    pub(crate) fn has_record(&self, dataset: Uuid) -> bool {
        !self.records.of(dataset).is_empty()
    }
}
