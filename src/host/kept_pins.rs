//! Taking over the pins that the service manager has kept since an earlier process.

use std::os::fd::OwnedFd;

use host_fs::mount::{Mount, MountHandle, MountTable};
use uuid::Uuid;

use super::Host;
use super::mount::NotFlockers;
use super::records::Record;

impl Host {
    /// Holds every mount that the manager has kept and that is still what a record of this boot says; closes the rest.
    ///
    /// They were held all along, so no agent has unmounted them.
    pub(super) fn take_kept_pins(&self, table: &MountTable) {
        for (name, dataset, kept) in self.settings.pin_store.take() {
            match dataset.map(|dataset| self.accept(dataset, kept, table)) {
                Some(Ok(())) => {}
                refused => {
                    let why = match refused {
                        Some(Err(why)) => why,
                        _ => "its name is not that of a dataset",
                    };
                    // The manager has the same descriptor.
                    self.settings.pin_store.remove_named(&name);
                    tracing::warn!("The service manager has kept {name}, which is closed: {why}");
                }
            }
        }
    }

    fn accept(&self, dataset: Uuid, kept: OwnedFd, table: &MountTable) -> Result<(), &'static str> {
        let mut records = self.records.of(dataset);
        records.retain(|record| record.may_be_mounted(self.boot_id));
        if records.is_empty() {
            return Err("no record says that the volume is staged here");
        }
        let Some(handle) = MountHandle::of_kept(kept, table) else {
            return Err("it is no mount of this mount namespace any more");
        };
        let mount = handle.mount();
        let origins = self.origins(dataset);
        let checked = self.check_flockers_mount(table, mount, dataset);
        let is_flockers = matches!(checked, Ok(()) | Err(NotFlockers::OtherDataset { .. }));
        if !is_flockers || origins.own(mount) {
            return Err("it is no mount that Flocker makes for the volume");
        }
        // Old kernels have no ids that a record could name.
        let is_recorded = |record: &Record| record.flocker.is_none_or(|held| held.is(mount) == Some(true));
        if !records.iter().any(is_recorded) {
            return Err("the record of the volume names another mount");
        }
        let of_other_device = |alias: &&Mount| origins.own(alias) && alias.device != mount.device;
        if table.mounts().iter().any(|alias| of_other_device(&alias)) {
            return Err("the volume is staged from another device");
        }
        self.pins.adopt(dataset, handle);
        Ok(())
    }
}
