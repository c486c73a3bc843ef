//! The steps of staging: the record, the pin on Flocker's mount, and the plugin's mount of its device.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use host_fs::mount::{Mount, OpenError, Patience, Target};
use uuid::Uuid;

use super::Host;
use super::evidence::{Staged, layers, mount_table};
use super::lifecycle::{Action, Goal, Pinned, decide};
use super::mount::{Aliases, Origin};
use super::records::{Record, RecordState};
use super::refusals::Subject;
use crate::error::{Error, Result, Situation};
use crate::volume::{VolumeLabels, dataset_of};

impl Host {
    /// Returns whether the volume is as a successful staging leaves it, which needs no request to Flocker; `false` when
    /// it has to be staged. A repeated staging under another name records the volume under that name. A `node` that is not
    /// known is taken for that of the record.
    ///
    /// # Errors
    /// [`Situation::ForeignMount`] when another mount is at the staging path; [`Situation::Busy`] when the volume is
    /// staged under the lease of another node, or that is still to be released.
    pub(crate) fn is_staged(&self, staged: &Staged, volume_id: &str, node: Option<Uuid>) -> Result<bool> {
        let state = self.state_in(&mount_table()?, staged)?;
        let node = node.or(state.node).unwrap_or_default();
        match decide(&state, Goal::Stage { node }) {
            Action::Nothing => {
                self.rename(staged, volume_id)?;
                Ok(true)
            }
            Action::Refuse(refusal) => Err(Subject::staging(volume_id, staged).refuse(refusal)),
            _ => Ok(false),
        }
    }

    /// Writes the record of a staging that begins, then makes the staging path if that is missing. The origins that earlier
    /// attempts of this boot recorded stay.
    pub(crate) fn begin_staging(
        &self,
        staged: &Staged,
        volume_id: &str,
        node: Uuid,
        takes_lease: bool,
    ) -> Result<()> {
        let Staged { dataset, staging } = staged;
        let earlier = self.records.get(*dataset, staging);
        let begun = Record {
            made_directories: self.directories_to_make(staging)?,
            ..Record::staging(staging, volume_id, *dataset, node, self.boot_id, takes_lease)
        };
        let record = match earlier.filter(|earlier| earlier.may_be_mounted(self.boot_id)) {
            None => begun,
            Some(earlier) => Record {
                volume_name: earlier.volume_name,
                claim: earlier.claim,
                origin: earlier.origin,
                earlier_origins: earlier.earlier_origins,
                flocker: earlier.flocker,
                ..begun
            },
        };
        self.store(&record)?;
        tracing::debug!(volume.id = %dataset, step = "recorded", "The staging of dataset {dataset} is on disk");
        Self::make_directories(&record)
    }

    /// Holds Flocker's mount in place; `false` when it no longer exists or another one is in its place.
    pub(crate) fn pin(&self, dataset: Uuid, flocker: &Mount) -> Result<bool> {
        match self.pins.pin(dataset, flocker) {
            Ok(()) => {
                let point = flocker.point.display();
                tracing::debug!(
                    volume.id = %dataset,
                    step = "pinned",
                    "Flocker's mount of dataset {dataset} at {point} is held in place"
                );
                Ok(true)
            }
            Err(OpenError::Replaced { .. }) => Ok(false),
            Err(OpenError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::internal(
                format!("hold the mount of dataset {dataset}"),
                error,
            )),
        }
    }

    /// Releases Flocker's mount.
    pub(crate) fn unpin(&self, dataset: Uuid) {
        self.pins.unpin(dataset);
        tracing::debug!(
            volume.id = %dataset,
            step = "unpinned",
            "Flocker's mount of dataset {dataset} is no longer held in place"
        );
    }

    /// Releases Flocker's mount unless a mount of the plugin still needs it.
    pub(crate) fn unpin_unless_mounted(&self, dataset: Uuid) -> Result<()> {
        let origins = self.origins(dataset);
        if !mount_table()?
            .mounts()
            .iter()
            .any(|mount| origins.are_used_by(mount))
        {
            self.unpin(dataset);
        }
        Ok(())
    }

    /// Mounts the dataset at the staging path; `false` when Flocker's mount changed in between, and the new mount is
    /// unmounted again.
    pub(crate) fn mount_alias(
        &self,
        dataset: Uuid,
        labels: Option<&VolumeLabels>,
        flocker: &Mount,
        staging: &Target,
    ) -> Result<bool> {
        let staged = Staged::new(dataset, staging);
        // A mount that an earlier process made with another device directory keeps its name, and stays ours.
        let origins = self.origins(dataset);
        let top = layers(&staged.alias())?.pop();
        let origin = top.and_then(|top| origins.of(&top));
        let origin = origin.unwrap_or_else(|| self.aliases.origin(dataset, flocker));
        let before = self.record(&staged)?;
        let earlier_origins = self.earlier_origins(&before, &origin)?;
        let labels = labels.cloned().or_else(|| before.labels()).unwrap_or_default();
        let record = Record {
            volume_name: labels.name,
            claim: labels.claim,
            origin: Some(origin.clone()),
            earlier_origins,
            flocker: self.pins.id(dataset),
            ..before
        };
        // Written first, so that a mount left by a killed process can be distinguished from other mounts.
        self.store(&record)?;
        let origins = self.origins(dataset);
        let owned = |mount: &Mount| origins.own(mount);
        let mounted = self
            .aliases
            .mount(dataset, &origin, flocker, staging.path(), owned);
        self.measured("stage", mounted)?;
        let pin = self
            .pins
            .view(dataset)
            .map_err(|error| Error::internal("see whether Flocker's mount is in place", error))?;
        if matches!(pin, Pinned::InPlace(held) if (held.id, held.device) == (flocker.id, flocker.device)) {
            // Lease and primary were read after the mount was pinned.
            self.pins.is_proven(dataset);
            self.stopped.forget(dataset, flocker.device);
            self.store(&Record {
                state: RecordState::Staged,
                ..record
            })?;
            let at = staged.alias();
            tracing::debug!(
                volume.id = %dataset,
                step = "staged",
                "Dataset {dataset} is mounted at {}, and that is on disk",
                at.display()
            );
            return Ok(true);
        }
        let unmounted = Aliases::unmount(dataset, staging.path(), owned, Patience::default());
        self.unmounted("unstage", unmounted)?;
        self.remove_directory_of(dataset, &staged.alias());
        Ok(false)
    }

    /// Returns the origins before this one that a mount still has: a target may show a device that the volume had before.
    fn earlier_origins(&self, record: &Record, now: &Origin) -> Result<Vec<Origin>> {
        let before = record.origin.iter().chain(&record.earlier_origins);
        let mut earlier: Vec<_> = before.filter(|earlier| *earlier != now).cloned().collect();
        if earlier.is_empty() {
            return Ok(earlier);
        }
        let table = mount_table()?;
        earlier.retain(|origin| {
            let origins = self.known_as(record.dataset_id, vec![origin.clone()]);
            table.mounts().iter().any(|mount| origins.are_used_by(mount))
        });
        Ok(earlier)
    }

    /// Returns where the device nodes of a dataset may be, whatever record has made them.
    pub(super) fn device_nodes(&self, dataset: Uuid) -> BTreeSet<PathBuf> {
        let records = self.records.of(dataset);
        let all = records
            .iter()
            .flat_map(|record| record.origin.iter().chain(&record.earlier_origins));
        let recorded = all.filter_map(|origin| origin.source().map(Path::to_owned));
        recorded.chain([self.aliases.nodes().path(dataset)]).collect()
    }

    /// Removes the record of a release that is taken over. It must not be found by the next process.
    pub(super) fn forget_durably(&self, staged: &Staged) -> Result<()> {
        let removed = self.records.remove(staged.dataset, &staged.staging);
        removed.map_err(|error| Error::of(Situation::Internal, &error))
    }

    /// Records the volume under the name under which it is staged again.
    fn rename(&self, staged: &Staged, volume_id: &str) -> Result<()> {
        let record = self.records.get(staged.dataset, &staged.staging);
        match record.filter(|record| record.volume_id != volume_id && dataset_of(volume_id).is_none()) {
            None => Ok(()),
            Some(record) => self.store(&Record {
                volume_id: volume_id.to_owned(),
                ..record
            }),
        }
    }

    pub(super) fn record(&self, staged: &Staged) -> Result<Record> {
        self.records.get(staged.dataset, &staged.staging).ok_or_else(|| {
            let text = format!(
                "the record of dataset {} at {} no longer exists",
                staged.dataset,
                staged.staging.display()
            );
            Error::new(Situation::Internal, text)
        })
    }

    pub(super) fn store(&self, record: &Record) -> Result<()> {
        self.records
            .write(record)
            .map_err(|error| Error::of(Situation::Internal, &error))
    }
}
