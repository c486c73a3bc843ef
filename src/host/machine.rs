//! What this process knows and holds of the machine it runs on: records, pins, mounts.
//!
//! Everything here blocks and is called through [`Host::blocking`]. What changes one dataset is called by one
//! operation at a time, which holds the dataset's lock.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::HostSettings;
use super::boot::boot_id;
use super::mount::{Aliases, DeviceNodes, MountVisibility, Origin, alias_path};
use super::pins::Pins;
use super::records::{Progress, Record, Records};
use super::soundness::mount_table;
use super::state_dir::claim;
use crate::error::{Error, Result, Situation};
use crate::volume::dataset_of;
use host_fs::LockedDirectory;
use host_fs::mount::{Binder, Mount, MountTable, OpenError, Patience, Target, visible_at};

/// A dataset at a staging path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    pub(crate) dataset: Uuid,
    /// Free of symbolic links.
    pub(crate) staging: PathBuf,
}

/// What is left of a dataset after it has gone from a staging path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Whether it is staged at another path, by whomever.
    pub(crate) staged_elsewhere: bool,
    /// Whether staging took a lease that has to be released.
    pub(crate) takes_lease: bool,
}

/// What becomes of somebody else's mount at the place where a volume is staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InTheWay {
    /// It is an error.
    Refused,
    /// It stays: the volume was never mounted there.
    LeftAlone,
}

/// The machine, as far as it is this process's to change.
pub(crate) struct Host {
    pub(crate) mount_root: PathBuf,
    boot_id: Uuid,
    aliases: Aliases,
    binder: Binder,
    visibility: MountVisibility,
    pub(crate) records: Records,
    pins: Pins,
    /// Declared last, so that the directory is given up after everything else.
    _state_dir: LockedDirectory,
}

impl Host {
    /// Takes possession of the state directory, pins again what is staged, and returns what is to be released.
    ///
    /// # Errors
    /// [`Situation::NotTheNodePlugin`] while another process owns the directory.
    pub(crate) fn open(settings: &HostSettings) -> Result<(Self, Vec<Staged>)> {
        let state_dir = claim(&settings.state_dir)?;
        let boot_id =
            boot_id().map_err(|error| Error::internal("read the boot id of this machine", error))?;
        let (records, damaged) = Records::open(&settings.state_dir.join("stages"))
            .map_err(|error| Error::of(Situation::Internal, &error))?;
        for error in damaged {
            tracing::error!(error = %crate::error::chain(&error), "A staging record cannot be read and is left alone");
        }
        let binder = Binder::for_this_kernel(&settings.state_dir.join("mounts"));
        binder
            .clear_unfinished()
            .map_err(|error| Error::internal("take away unfinished mounts of an earlier process", error))?;
        let host = Self {
            mount_root: settings.mount_root.clone(),
            boot_id,
            aliases: Aliases::new(DeviceNodes::new(&settings.device_dir), binder.clone()),
            binder,
            visibility: MountVisibility::of_this_process(),
            records,
            pins: Pins::default(),
            _state_dir: state_dir,
        };
        let pending = host.restore()?;
        Ok((host, pending))
    }

    /// Runs blocking work where it may block.
    pub(crate) async fn blocking<T, W>(self: &Arc<Self>, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&Self) -> Result<T> + Send + 'static,
    {
        let host = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&host)).await {
            Ok(result) => result,
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            Err(_) => Err(Error::new(Situation::Busy, "the plugin is stopping")),
        }
    }

    pub(crate) fn boot_id(&self) -> Uuid {
        self.boot_id
    }

    pub(crate) fn binder(&self) -> &Binder {
        &self.binder
    }

    pub(crate) fn visibility(&self) -> MountVisibility {
        self.visibility
    }

    /// Writes the record of a staging that begins. What an earlier attempt of this boot noted of its mounts stays.
    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        let earlier = self.records.get(record.dataset_id, &record.staging_path);
        let origin = earlier
            .filter(|earlier| earlier.boot_id == self.boot_id)
            .and_then(|earlier| earlier.origin);
        self.store(&Record {
            origin,
            ..record.clone()
        })
    }

    /// Holds Flocker's mount in place; `false` when it has gone or another has taken its place.
    pub(crate) fn pin(&self, dataset: Uuid, flocker: &Mount) -> Result<bool> {
        match self.pins.pin(dataset, flocker) {
            Ok(()) => Ok(true),
            Err(OpenError::Replaced { .. }) => Ok(false),
            Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::internal(
                format!("hold the mount of dataset {dataset}"),
                error,
            )),
        }
    }

    /// Lets go of Flocker's mount.
    pub(crate) fn unpin(&self, dataset: Uuid) {
        self.pins.unpin(dataset);
    }

    /// Lets go of Flocker's mount unless a mount of ours still needs it held.
    pub(crate) fn unpin_unless_mounted(&self, dataset: Uuid) -> Result<()> {
        let table = mount_table()?;
        let origins = self.origins_of(dataset);
        if !table
            .mounts()
            .iter()
            .any(|mount| origins.iter().any(|origin| origin.owns(mount)))
        {
            self.unpin(dataset);
        }
        Ok(())
    }

    /// Returns Flocker's mount as it was when it was pinned.
    pub(crate) fn pinned(&self, dataset: Uuid) -> Option<Mount> {
        self.pins.get(dataset)
    }

    /// Returns another descriptor on the root of the mount that is pinned.
    pub(crate) fn pinned_root(&self, dataset: Uuid) -> Option<OwnedFd> {
        self.pins.root(dataset)
    }

    /// Whether Flocker's mount is held and still in its place.
    pub(crate) fn is_pinned(&self, dataset: Uuid) -> bool {
        matches!(self.pins.in_place(dataset), Ok(Some(true)))
    }

    /// Mounts the dataset at the staging path; `false` when Flocker's mount changed meanwhile, and ours has gone.
    pub(crate) fn mount_alias(&self, dataset: Uuid, flocker: &Mount, staging: &Target) -> Result<bool> {
        let mut record = self.record(dataset, staging.path())?;
        let origin = self.aliases.origin(dataset, flocker);
        // Written first: whatever this process leaves when it is killed can be told from other mounts.
        record.origin = Some(origin.clone());
        self.store(&record)?;
        self.aliases.mount(dataset, flocker, staging.path())?;
        let held = self.pins.get(dataset);
        if self.is_pinned(dataset)
            && held.is_some_and(|held| (held.id, held.device) == (flocker.id, flocker.device))
        {
            record.progress = Progress::Staged;
            self.store(&record)?;
            return Ok(true);
        }
        self.aliases
            .unmount(dataset, &origin, staging.path(), Patience::default())?;
        Ok(false)
    }

    /// Unmounts the dataset from a staging path, and removes its device node with the last one.
    pub(crate) fn unmount_staged(&self, staged: &Staged, in_the_way: InTheWay) -> Result<Left> {
        let Staged { dataset, staging } = staged;
        let alias = alias_path(staging, *dataset);
        let table = mount_table()?;
        let origins = self.origins_of(*dataset);
        let ours = |mount: &Mount| origins.iter().any(|origin| origin.owns(mount));
        let going = table.layers_at(&alias).pop().and_then(|mount| table.place(mount));
        let goes_too = |mount: &Mount| mount.point == alias || going.is_some() && table.place(mount) == going;
        let others: Vec<_> = table
            .mounts()
            .iter()
            .filter(|mount| ours(mount) && !goes_too(mount))
            .collect();
        let (aliases, targets): (Vec<&Mount>, Vec<&Mount>) = others
            .iter()
            .copied()
            .partition(|mount| self.is_alias(&table, mount));
        let staged_elsewhere = !aliases.is_empty() || self.staged_by_another(&table, *dataset, &alias);
        if let (Some(target), false) = (targets.first(), staged_elsewhere) {
            let text = format!(
                "volume {dataset} is still published at {}; call NodeUnpublishVolume for that before the volume is unstaged",
                target.point.display()
            );
            return Err(Error::new(Situation::MountBusy, text));
        }
        self.refuse_hidden(&table, *dataset, &alias)?;
        let origin = visible(&alias)?
            .and_then(|mount| origins.iter().find(|origin| origin.owns(&mount)).cloned())
            .unwrap_or_else(|| self.usual_origin(*dataset));
        if in_the_way == InTheWay::Refused || !self.is_foreign(staged)? {
            self.aliases
                .unmount(*dataset, &origin, staging, Patience::default())?;
        }
        if others.is_empty() {
            self.aliases
                .forget_device(*dataset)
                .map_err(|error| Error::internal(format!("forget the device of dataset {dataset}"), error))?;
        }
        let takes_lease = self
            .records
            .get(*dataset, staging)
            .is_some_and(|record| record.takes_lease)
            && !self.is_inherited(staged);
        Ok(Left {
            staged_elsewhere,
            takes_lease,
        })
    }

    /// Removes the record.
    pub(crate) fn forget(&self, staged: &Staged) -> Result<()> {
        let removed = self.records.remove(staged.dataset, &staged.staging);
        removed.map_err(|error| Error::of(Situation::Internal, &error))
    }

    /// Notes that the mount has gone and the lease is to be released.
    pub(crate) fn mark_release_pending(&self, staged: &Staged) -> Result<()> {
        let record = self.record(staged.dataset, &staged.staging)?;
        self.store(&Record {
            progress: Progress::ReleasePending,
            ..record
        })
    }

    /// Whether the lease is still to be released: no new staging has taken the record over.
    pub(crate) fn is_release_pending(&self, staged: &Staged) -> bool {
        let record = self.records.get(staged.dataset, &staged.staging);
        record.is_some_and(|record| record.progress == Progress::ReleasePending)
    }

    /// Whether a lease is to be released at this moment; a record whose lease a later staging uses is forgotten.
    pub(crate) fn is_release_due(&self, staged: &Staged) -> Result<bool> {
        if !self.is_release_pending(staged) {
            return Ok(false);
        }
        if self.is_inherited(staged) {
            self.forget(staged)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether the dataset is staged, or being staged, at another path: the lease is that one's then.
    fn is_inherited(&self, staged: &Staged) -> bool {
        let heir = |record: &Record| {
            record.dataset_id == staged.dataset
                && record.staging_path != staged.staging
                && self.is_live(record)
        };
        !self.records.select(heir).is_empty()
    }

    /// Whether something of the staging may be mounted.
    pub(crate) fn is_live(&self, record: &Record) -> bool {
        record.boot_id == self.boot_id && record.progress != Progress::ReleasePending
    }

    /// Returns everything that tells our mounts of a dataset from others.
    pub(crate) fn origins_of(&self, dataset: Uuid) -> Vec<Origin> {
        let recorded = self.records.select(|record| record.dataset_id == dataset);
        let mut origins: Vec<_> = recorded.into_iter().filter_map(|record| record.origin).collect();
        // The device node's name alone tells our mounts, also when the records were lost.
        origins.push(self.usual_origin(dataset));
        origins.dedup();
        origins
    }

    /// Whether a mount is one that staging made, or a copy of it, as opposed to one that publishing made.
    pub(crate) fn is_alias(&self, table: &MountTable, mount: &Mount) -> bool {
        self.records.select(|_| true).iter().any(|record| {
            let alias = alias_path(&record.staging_path, record.dataset_id);
            alias == mount.point
                || table
                    .layers_at(&alias)
                    .pop()
                    .and_then(|alias| table.place(alias))
                    .is_some_and(|place| table.place(mount) == Some(place))
        })
    }

    /// Whether another plugin on this machine has staged the dataset, under device nodes of its own.
    fn staged_by_another(&self, table: &MountTable, dataset: Uuid, alias: &Path) -> bool {
        let Some(flocker) = self.pins.get(dataset) else {
            return false;
        };
        let name = dataset.to_string();
        table.by_device(flocker.device).any(|mount| {
            mount.id != flocker.id
                && mount.source != flocker.source
                && mount.point != alias
                && mount.source != self.aliases.nodes().path(dataset)
                && mount.point.file_name().is_some_and(|last| last == name.as_str())
        })
    }

    /// Returns the dataset whose device node a mount of ours was made from, which its name tells.
    pub(crate) fn dataset_of_mount(&self, mount: &Mount) -> Option<Uuid> {
        let name = Path::new(&mount.source).file_name()?.to_str()?;
        let dataset = dataset_of(name)?;
        self.usual_origin(dataset).owns(mount).then_some(dataset)
    }

    fn usual_origin(&self, dataset: Uuid) -> Origin {
        Origin::Alias {
            node: self.aliases.nodes().path(dataset),
        }
    }

    fn record(&self, dataset: Uuid, staging: &Path) -> Result<Record> {
        self.records.get(dataset, staging).ok_or_else(|| {
            let text = format!(
                "the record of dataset {dataset} at {} has gone",
                staging.display()
            );
            Error::new(Situation::Internal, text)
        })
    }

    pub(crate) fn store(&self, record: &Record) -> Result<()> {
        self.records
            .write(record)
            .map_err(|error| Error::of(Situation::Internal, &error))
    }
}

/// Returns the mount that a path leads to, if it is a mount point.
pub(crate) fn visible(path: &Path) -> Result<Option<Mount>> {
    visible_at(path)
        .map_err(|error| Error::internal(format!("see what is mounted at {}", path.display()), error))
}
