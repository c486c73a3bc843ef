//! Restoring, at the start, the volumes that an earlier process staged.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use host_fs::mount::{Mount, MountTable};
use uuid::Uuid;

use super::Host;
use super::evidence::{Origins, Staged, is_from_plugins_node, mount_table};
use super::leftovers::LeftoverKind;
use super::lifecycle::{Action, AtStaging, Fault, Goal, decide};
use super::mount::{NotFlockers, Origin, alias_path, check_flockers_mount, device_of_node};
use super::records::Record;
use crate::error::Result;

impl Host {
    /// Pins every volume that is staged in this boot, and returns the leases that are still to be released.
    pub(super) fn restore(&self) -> Result<Vec<Staged>> {
        let table = mount_table()?;
        let mut pending = Vec::new();
        self.take_kept_pins(&table);
        for record in self.records.select(|record| record.may_be_mounted(self.boot_id)) {
            self.identify_mounts(record, &table);
        }
        for record in self.records.select(|_| true) {
            let staged = Staged {
                dataset: record.dataset_id,
                staging: record.staging_path.clone(),
            };
            let state = match self.state_in(&table, &staged) {
                Ok(state) => state,
                Err(error) => {
                    // Every other volume is served; this one is looked at again by the next call about it.
                    tracing::error!(
                        volume.id = %staged.dataset,
                        error = %error.chain(),
                        "Cannot see the state of dataset {} at {}",
                        staged.dataset,
                        staged.staging.display()
                    );
                    continue;
                }
            };
            match decide(&state, Goal::Restore) {
                Action::PinAgain => self.pin_again(&record, &staged, &table),
                Action::ReleaseLease => {
                    // An earlier process may have ended right after the unmount.
                    self.remove_directory_of(staged.dataset, &staged.alias());
                    pending.push(staged);
                }
                Action::MarkReleasePending => {
                    self.remove_directory_of(staged.dataset, &staged.alias());
                    self.mark_release_pending(&staged);
                    pending.push(staged);
                }
                Action::Forget => {
                    self.remove_directory_of(staged.dataset, &staged.alias());
                    self.forget(&staged);
                }
                _ if state.at_staging == AtStaging::Unhealthy(Fault::Unmounted) => {
                    report_unmounted(&record);
                }
                _ => {}
            }
        }
        self.find_targets(&table);
        self.find_device_nodes(&table);
        self.log_restored(pending.len());
        Ok(pending)
    }

    fn log_restored(&self, pending: usize) {
        let staged = self.records.select(|record| record.may_be_mounted(self.boot_id));
        let staged: BTreeSet<_> = staged.into_iter().map(|record| record.dataset_id).collect();
        let held = staged.iter().filter(|dataset| self.pins.get(**dataset).is_some());
        let (staged, held) = (staged.len(), held.count());
        tracing::info!(
            volumes.staged = staged,
            volumes.held = held,
            leases.pending = pending,
            "Volumes that were found staged on this machine: {staged}, of which {held} are held in place again; leases that are \
             still to be released: {pending}"
        );
    }

    /// Adds to a record of version 2 or before what distinguishes the mounts of its boot.
    fn identify_mounts(&self, record: Record, table: &MountTable) {
        let dataset = record.dataset_id;
        let is_flockers = |mount: &Mount| self.check_flockers_mount(table, mount, dataset).is_ok();
        let identified = match &record.origin {
            Some(Origin::Alias { node, device: None }) => {
                let alias = alias_path(&record.staging_path, dataset);
                let mut made = table
                    .by_source(node.as_os_str())
                    .filter(|mount| mount.device.is_block());
                let device = made.find(|mount| mount.point == alias).map(|mount| mount.device);
                // The name alone proves nothing.
                let proven = device.filter(|device| {
                    device_of_node(node) == Some(*device) || table.by_device(*device).any(is_flockers)
                });
                proven.map(|device| Origin::Alias {
                    node: node.clone(),
                    device: Some(device),
                })
            }
            Some(Origin::Bind {
                device,
                root,
                flocker,
                fs_type: None,
                ..
            }) => {
                let flockers = table.layers_at(flocker).pop();
                let same = flockers.filter(|mount| mount.device == *device && mount.root == *root);
                let same = same.filter(|mount| is_flockers(mount));
                same.map(|mount| self.aliases.origin(dataset, mount))
            }
            _ => None,
        };
        let Some(origin) = identified else { return };
        let record = Record {
            origin: Some(origin),
            ..record
        };
        if let Err(error) = self.store(&record) {
            tracing::warn!(
                volume.id = %dataset,
                error = %error.chain(),
                "Cannot write the device of dataset {dataset} into its record; it is found again at the next start"
            );
            self.records.note(record);
        }
    }

    fn pin_again(&self, record: &Record, staged: &Staged, table: &MountTable) {
        let dataset = record.dataset_id;
        if self.pins.unbroken(dataset).is_some() {
            return;
        }
        let origins = self.origins(dataset);
        let at_alias = |mount: &&Mount| origins.own(mount);
        let path = staged.alias();
        let Some(alias) = table.layers_at(&path).into_iter().rev().find(at_alias) else {
            return;
        };
        let flocker = self.flockers_mount(table, alias, &origins, record);
        let pinned = flocker.map(|flocker| self.pin(dataset, flocker));
        if matches!(pinned, Some(Ok(true))) {
            self.prove_pin(dataset);
        } else {
            tracing::error!(
                volume.id = %dataset,
                staging.path = %record.staging_path.display(),
                "Dataset {dataset} is staged at {}, but the mount of Flocker's that was held then no longer exists: \
                 only the lease keeps it on this node, and whose that is is read as soon as Flocker answers",
                record.staging_path.display()
            );
        }
    }

    /// Notes that the pinned mount has been in place without interruption where it is the one that a staging of this boot has
    /// recorded after it had read the lease: the kernel gives its id to no other mount, so nothing has unmounted it.
    fn prove_pin(&self, dataset: Uuid) {
        let Some(pinned) = self.pins.get(dataset) else {
            return;
        };
        let mut records = self.records.of(dataset);
        records.retain(|record| record.may_be_mounted(self.boot_id));
        let held = |record: &Record| record.flocker.is_some_and(|held| held.is(&pinned) == Some(true));
        if records.iter().any(held) {
            self.pins.is_proven(dataset);
        }
    }

    /// Finds Flocker's mount of the volume whose alias this is.
    ///
    /// In place of the mount that an earlier process pinned in this mount namespace, another one is not pinned: in between,
    /// another node may have used the volume. A staging, which reads the lease, decides about that.
    fn flockers_mount<'a>(
        &self,
        table: &'a MountTable,
        alias: &Mount,
        origins: &Origins,
        record: &Record,
    ) -> Option<&'a Mount> {
        let dataset = record.dataset_id;
        let usual = self.settings.mount_root.join(dataset.to_string());
        let replaced = |mount: &Mount| record.flocker.is_some_and(|held| held.is(mount) == Some(false));
        // The record and the alias, which keeps the number of its device, prove whose the device is, whatever else was
        // mounted from it since.
        let is_flockers = |mount: &Mount| {
            let checked = self.check_flockers_mount(table, mount, dataset);
            matches!(checked, Ok(()) | Err(NotFlockers::OtherDataset { .. }))
        };
        let candidates: Vec<_> = table
            .by_device(alias.device)
            .filter(|mount| !origins.own(mount) && mount.root == alias.root && !replaced(mount))
            .filter(|mount| !is_from_plugins_node(mount, dataset) && is_flockers(mount))
            .collect();
        let at_usual = candidates.iter().find(|mount| mount.point == usual);
        at_usual.or_else(|| candidates.first()).copied()
    }

    pub(super) fn check_flockers_mount(
        &self,
        table: &MountTable,
        mount: &Mount,
        dataset: Uuid,
    ) -> std::result::Result<(), NotFlockers> {
        check_flockers_mount(table, mount, dataset, &self.settings.agent_file_systems)
    }

    /// Removes the device nodes of volumes that are not staged, which an earlier process could not remove.
    fn find_device_nodes(&self, table: &MountTable) {
        let is_source = |node: &Path| {
            table
                .mounts()
                .iter()
                .any(|mount| Path::new(&mount.source) == node)
        };
        for dataset in self.aliases.nodes().datasets() {
            let node = self.aliases.nodes().path(dataset);
            let staged = self.records.of(dataset);
            if staged.iter().any(|record| record.may_be_mounted(self.boot_id)) || is_source(&node) {
                continue;
            }
            if let Err(error) = self.aliases.forget_device(dataset, &node) {
                self.leave(dataset, LeftoverKind::DeviceNode, &node, &error);
            }
        }
    }

    /// Collects where the plugin's volumes are published, in one pass over the mount table.
    fn find_targets(&self, table: &MountTable) {
        let mut origins: HashMap<Uuid, Origins> = HashMap::new();
        for record in self.records.select(|record| record.may_be_mounted(self.boot_id)) {
            let dataset = record.dataset_id;
            origins.entry(dataset).or_insert_with(|| self.origins(dataset));
        }
        let by_source: HashMap<&Path, Uuid> = origins
            .iter()
            .flat_map(|(dataset, origins)| origins.iter().map(move |origin| (origin.source(), *dataset)))
            .filter_map(|(source, dataset)| Some((source?, dataset)))
            .collect();
        for mount in table.mounts() {
            let named = by_source.get(Path::new(&mount.source)).copied();
            let known = named.filter(|dataset| origins.get(dataset).is_some_and(|of| of.are_used_by(mount)));
            // Where the record was lost, the source and its device still name the dataset.
            let owner = known.or_else(|| self.dataset_of_mount(mount)).or_else(|| {
                // Without a block device the source says nothing.
                let owns =
                    |(dataset, origins): (&Uuid, &Origins)| origins.are_used_by(mount).then_some(*dataset);
                if mount.device.is_block() {
                    None
                } else {
                    origins.iter().find_map(owns)
                }
            });
            if let Some(dataset) = owner
                && !self.is_alias(table, dataset, mount)
            {
                self.targets.add(dataset, &mount.point);
            }
        }
    }
}

/// Logs a staging of this boot whose mount this process does not see. That is no proof that it was unmounted.
fn report_unmounted(record: &Record) {
    let lease = if record.takes_lease {
        ", which also releases the lease that the staging took"
    } else {
        ""
    };
    tracing::warn!(
        volume.id = %record.dataset_id,
        staging.path = %record.staging_path.display(),
        "Dataset {} was staged at {} in this boot, and is not mounted there as far as this process sees; its record is kept \
         until NodeStageVolume repairs it or NodeUnstageVolume removes it{lease}",
        record.dataset_id,
        record.staging_path.display()
    );
}
