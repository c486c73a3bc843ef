//! Whether what is mounted is what it should be.

use std::path::Path;

use uuid::Uuid;

use super::machine::{Host, Staged, visible};
use super::mount::{ProbeVia, alias_path, file_system_fault};
use super::records::Progress;
use crate::error::{Error, Result, Situation};
use host_fs::mount::{Mount, MountTable, Target, layers_at};

impl Host {
    /// Whether the dataset is staged at this path, and pinned, as a successful call leaves it.
    ///
    /// A file system that turned read-only since does not count: what is staged can still be published for reading.
    pub(crate) fn is_sound(&self, dataset: Uuid, staging: &Target) -> Result<bool> {
        let Some(record) = self.records.get(dataset, staging.path()) else {
            return Ok(false);
        };
        // A staging that was interrupted may not have come to its last look at Flocker.
        let Some(origin) = record.origin.filter(|_| record.progress == Progress::Staged) else {
            return Ok(false);
        };
        let visible = visible(&alias_path(staging.path(), dataset))?;
        Ok(visible.is_some_and(|mount| origin.owns(&mount) && self.weakness(dataset, &mount).is_none()))
    }

    /// Tells why a mount of the dataset is not, or not safely, Flocker's mount once more.
    ///
    /// Names and numbers of devices are given to others in time; the mount that is held proves which one it is.
    pub(crate) fn weakness(&self, dataset: Uuid, mount: &Mount) -> Option<String> {
        let Some(held) = self.pinned(dataset) else {
            return Some(format!(
                "nothing holds Flocker's mount of dataset {dataset} in place: stage the volume again"
            ));
        };
        if held.device != mount.device {
            return Some(format!(
                "the volume is on device {}, but Flocker's mount is on {}",
                mount.device, held.device
            ));
        }
        (!self.is_pinned(dataset)).then(|| {
            format!(
                "Flocker's mount at {} has gone or is hidden, so nothing keeps the volume on this node",
                held.point.display()
            )
        })
    }

    /// Tells what is wrong with a mounted volume, if anything is.
    pub(crate) fn ailment(&self, dataset: Uuid, mount: &Mount) -> Option<String> {
        self.weakness(dataset, mount).or_else(|| file_system_fault(mount))
    }

    /// Chooses through what to ask for the usage of a mounted volume: best through the mount that is held anyway.
    pub(crate) fn way_to(&self, dataset: Uuid, mount: &Mount) -> ProbeVia {
        let held = self
            .pinned(dataset)
            .is_some_and(|held| held.device == mount.device);
        let root = held.then(|| self.pinned_root(dataset)).flatten();
        root.map_or(ProbeVia::Path, ProbeVia::Root)
    }

    /// Whether a mount is one that the plugin made of the dataset.
    pub(crate) fn owns(&self, dataset: Uuid, mount: &Mount) -> bool {
        self.origins_of(dataset).iter().any(|origin| origin.owns(mount))
    }

    /// Checks that no mount of ours at a path is out of reach, because somebody mounted something over it or over a
    /// directory above.
    ///
    /// # Errors
    /// [`Situation::ForeignMount`], naming what hides it.
    pub(crate) fn refuse_hidden(&self, table: &MountTable, dataset: Uuid, path: &Path) -> Result<()> {
        match self.hidden(table, dataset, path) {
            None => Ok(()),
            Some((mount, over)) => Err(hidden_error(dataset, &mount, &over)),
        }
    }

    /// Returns a mount of ours at a path that cannot be reached, and what hides it.
    fn hidden(&self, table: &MountTable, dataset: Uuid, path: &Path) -> Option<(Mount, Mount)> {
        let over = table.holding(path)?;
        let origins = self.origins_of(dataset);
        let ours = |mount: &Mount| origins.iter().any(|origin| origin.owns(mount));
        // What lies under a mount of ours goes with it, or is found when that has gone.
        if over.point == path && ours(over) {
            return None;
        }
        let mount = table
            .mounts()
            .iter()
            .find(|mount| mount.point == path && mount.id != over.id && ours(mount))?;
        Some((mount.clone(), over.clone()))
    }

    /// Checks before anything is mounted that nobody else's mount is in the way.
    ///
    /// # Errors
    /// [`Situation::ForeignMount`], naming it.
    pub(crate) fn refuse_foreign(&self, staged: &Staged) -> Result<()> {
        let path = alias_path(&staged.staging, staged.dataset);
        if let Some(found) = visible(&path)?
            && !self.owns(staged.dataset, &found)
        {
            return Err(Error::new(
                Situation::ForeignMount,
                format!(
                    "{} is in use by a mount that is not the plugin's and is left alone: {found}; unmount it",
                    path.display()
                ),
            ));
        }
        self.refuse_hidden(&mount_table()?, staged.dataset, &path)
    }

    /// Whether all that is mounted at the place for a staging path is somebody else's.
    pub(crate) fn is_foreign(&self, staged: &Staged) -> Result<bool> {
        let path = alias_path(&staged.staging, staged.dataset);
        let layers = layers_at(&path)
            .map_err(|error| Error::internal(format!("see what is mounted at {}", path.display()), error))?;
        Ok(!layers.is_empty() && !layers.iter().any(|mount| self.owns(staged.dataset, mount)))
    }
}

/// Reads the whole mount table.
pub(crate) fn mount_table() -> Result<MountTable> {
    MountTable::read().map_err(|error| Error::internal("read the mount table", error))
}

fn hidden_error(dataset: Uuid, mount: &Mount, over: &Mount) -> Error {
    Error::new(
        Situation::ForeignMount,
        format!(
            "volume {dataset} is mounted at {}, but hidden under {over}, which is not ours and is left alone; unmount that",
            mount.point.display()
        ),
    )
}
