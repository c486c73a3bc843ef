//! Restoring, at the start, the volumes that an earlier process staged.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

use host_fs::mount::{Mount, MountTable};
use uuid::Uuid;

use super::Host;
use super::evidence::{Origins, Staged, mount_table};
use super::lifecycle::{Action, Goal, decide};
use super::records::Record;
use crate::error::Result;

impl Host {
    /// Pins every volume that is staged in this boot, and returns the leases that are still to be released.
    pub(super) fn restore(&self) -> Result<Vec<Staged>> {
        let table = mount_table()?;
        let mut pending = Vec::new();
        for record in self.records.select(|_| true) {
            let staged = Staged {
                dataset: record.dataset_id,
                staging: record.staging_path.clone(),
            };
            match decide(&self.state_in(&table, &staged)?, Goal::Restore) {
                Action::PinAgain => self.pin_again(&record, &staged, &table),
                Action::ReleaseLease => pending.push(staged),
                Action::MarkReleasePending => {
                    remove_mount_point(&staged);
                    self.mark_release_pending(&staged)?;
                    pending.push(staged);
                }
                Action::Forget => {
                    remove_mount_point(&staged);
                    self.forget(&staged)?;
                }
                _ => {}
            }
        }
        self.find_targets(&table);
        Ok(pending)
    }

    fn pin_again(&self, record: &Record, staged: &Staged, table: &MountTable) {
        let dataset = record.dataset_id;
        let origins = self.origins(dataset);
        let at_alias = |mount: &&Mount| origins.own(mount);
        let path = staged.alias();
        let Some(alias) = table.layers_at(&path).into_iter().rev().find(at_alias) else {
            return;
        };
        let flocker = flockers_mount(table, alias, &origins, &self.settings.mount_root, dataset);
        let pinned = flocker.map(|flocker| self.pin(dataset, flocker));
        if !matches!(pinned, Some(Ok(true))) {
            tracing::error!(
                dataset.id = %dataset,
                staging.path = %record.staging_path.display(),
                "Dataset {dataset} is staged at {}, but Flocker's own mount of it no longer exists: only the lease \
                 keeps it on this node",
                record.staging_path.display()
            );
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
            let known = by_source.get(Path::new(&mount.source)).copied();
            // Where the record was lost, the source still names the dataset.
            let owner = known.or_else(|| self.dataset_of_mount(mount)).or_else(|| {
                // Without a block device the source says nothing.
                let owns = |(dataset, origins): (&Uuid, &Origins)| origins.own(mount).then_some(*dataset);
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

/// Finds Flocker's mount of the volume whose alias this is.
///
/// Flocker names every mount point after its dataset. Another name means that the device now belongs to another volume,
/// and then neither that mount nor the plugin's is this volume.
fn flockers_mount<'a>(
    table: &'a MountTable,
    alias: &Mount,
    origins: &Origins,
    mount_root: &Path,
    dataset: Uuid,
) -> Option<&'a Mount> {
    let name = dataset.to_string();
    let usual = mount_root.join(&name);
    let candidates: Vec<_> = table
        .by_device(alias.device)
        .filter(|mount| !origins.own(mount) && mount.root == alias.root)
        .filter(|mount| mount.point.file_name().is_some_and(|last| last == name.as_str()))
        .collect();
    let at_usual = candidates.iter().find(|mount| mount.point == usual);
    at_usual.or_else(|| candidates.first()).copied()
}

/// Removes the directory of a mount that ended with an earlier boot, unless it has content or a mount.
fn remove_mount_point(staged: &Staged) {
    let path = staged.alias();
    match std::fs::remove_dir(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(
                path = %path.display(),
                %error,
                "Cannot remove the directory where a volume was mounted before this machine was started"
            );
        }
        _ => {}
    }
}
