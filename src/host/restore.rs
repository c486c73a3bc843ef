//! What a new process does with what an earlier one had staged.

use std::io::ErrorKind;

use super::machine::{Host, Staged};
use super::mount::alias_path;
use super::records::{Progress, Record};
use crate::error::{Error, Result};
use host_fs::mount::{Mount, MountTable};

impl Host {
    /// Pins again what is staged in this boot, and returns the leases that staging took in vain.
    pub(crate) fn restore(&self) -> Result<Vec<Staged>> {
        let table = MountTable::read().map_err(|error| Error::internal("read the mount table", error))?;
        let mut pending = Vec::new();
        for record in self.records.select(|_| true) {
            let staged = Staged {
                dataset: record.dataset_id,
                staging: record.staging_path.clone(),
            };
            if record.progress == Progress::ReleasePending {
                pending.push(staged);
            } else if record.boot_id == self.boot_id() {
                self.pin_again(&record, &table);
            } else {
                remove_mount_point(&staged);
                if record.takes_lease {
                    // Nobody unstages after a reboot, so this lease would lock the volume to this node for ever.
                    self.store(&Record {
                        progress: Progress::ReleasePending,
                        ..record
                    })?;
                    pending.push(staged);
                } else {
                    self.forget(&staged)?;
                }
            }
        }
        Ok(pending)
    }

    fn pin_again(&self, record: &Record, table: &MountTable) {
        let (dataset, Some(origin)) = (record.dataset_id, &record.origin) else {
            return;
        };
        let alias = alias_path(&record.staging_path, dataset);
        let Some(alias) = table.layers_at(&alias).pop().filter(|mount| origin.owns(mount)) else {
            return;
        };
        let ours = |mount: &Mount| origin.owns(mount);
        let name = dataset.to_string();
        let usual = self.mount_root.join(&name);
        // Flocker names every mount point after its dataset. Another name means that the device is another volume's by
        // now, and then neither it nor our mount may be taken for this one.
        let named = |mount: &Mount| mount.point.file_name().is_some_and(|last| last == name.as_str());
        let candidates: Vec<_> = table
            .by_device(alias.device)
            .filter(|mount| !ours(mount) && mount.root == alias.root && named(mount))
            .collect();
        let flocker = candidates
            .iter()
            .find(|mount| mount.point == usual)
            .or_else(|| candidates.first());
        let pinned = flocker.map(|flocker| self.pin(dataset, flocker));
        if !matches!(pinned, Some(Ok(true))) {
            tracing::error!(
                dataset.id = %dataset,
                staging.path = %record.staging_path.display(),
                "Dataset {dataset} is staged at {}, but Flocker's own mount of it has gone: nothing but the lease keeps it here",
                record.staging_path.display()
            );
        }
    }
}

/// Removes the directory of a mount that ended with an earlier boot, unless there is anything in it or on it.
fn remove_mount_point(staged: &Staged) {
    let path = alias_path(&staged.staging, staged.dataset);
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
