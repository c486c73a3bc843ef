//! What records, mount table and pins say of a dataset at this moment.

use std::path::{Path, PathBuf};

use host_fs::mount::{Mount, MountTable, Target, file_system_id, layers_at};
use uuid::Uuid;

use super::Host;
use super::lifecycle::{AliasView, Elsewhere, Evidence, VolumeState, alias_view, observe};
use super::mount::{KnownDevices, Origin, Ownership, alias_path, device_of_node, is_named_after};
use super::records::Record;
use crate::error::{Error, Result};

/// A dataset at a staging path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    pub(crate) dataset: Uuid,
    /// Free of symbolic links.
    pub(crate) staging: PathBuf,
}

impl Staged {
    pub(crate) fn new(dataset: Uuid, staging: &Target) -> Self {
        Self {
            dataset,
            staging: staging.path().to_owned(),
        }
    }

    /// Returns where staging mounts the dataset.
    pub(crate) fn alias(&self) -> PathBuf {
        alias_path(&self.staging, self.dataset)
    }
}

/// What distinguishes the plugin's mounts of one dataset from all other mounts.
pub(super) struct Origins {
    origins: Vec<Origin>,
    known: KnownDevices,
}

impl Origins {
    /// Returns the origin that a mount has, if it is the plugin's mount of the dataset.
    pub(super) fn of(&self, mount: &Mount) -> Option<Origin> {
        let origin = self
            .origins
            .iter()
            .find(|origin| self.is(origin, mount, Ownership::Ours))?;
        Some(match origin {
            Origin::Alias { node, device: None } => Origin::Alias {
                node: node.clone(),
                device: Some(mount.device),
            },
            known => known.clone(),
        })
    }

    /// Whether a mount is the plugin's mount of the dataset, which it may unmount.
    pub(super) fn own(&self, mount: &Mount) -> bool {
        self.any(mount, Ownership::Ours)
    }

    /// Whether the dataset is in use as long as a mount exists: one of the plugin's, or one that shows a part of it.
    pub(super) fn are_used_by(&self, mount: &Mount) -> bool {
        self.any(mount, Ownership::InUse)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Origin> {
        self.origins.iter()
    }

    fn any(&self, mount: &Mount, at_least: Ownership) -> bool {
        self.origins.iter().any(|origin| self.is(origin, mount, at_least))
    }

    fn is(&self, origin: &Origin, mount: &Mount, at_least: Ownership) -> bool {
        origin.ownership(mount, self.known, file_system_id) >= at_least
    }
}

impl Host {
    /// Returns all origins of the plugin's mounts of a dataset.
    ///
    /// A record of another boot, or of a lease that is still to be released, has none: the kernel gives the number of a
    /// device to another one.
    pub(super) fn origins(&self, dataset: Uuid) -> Origins {
        let records = self.records.of(dataset);
        let recorded = records.iter().flat_map(|record| record.origins(self.boot_id));
        let mut origins: Vec<_> = recorded.cloned().collect();
        origins.dedup();
        // Where the records were lost, the device node in the plugin's own directory still names the device, unless a
        // record of the dataset contradicts that.
        if origins.is_empty() && records.iter().all(|record| record.may_be_mounted(self.boot_id)) {
            origins.push(Origin::Alias {
                node: self.aliases.nodes().path(dataset),
                device: None,
            });
        }
        self.known_as(dataset, origins)
    }

    /// Returns these origins of a dataset with what is known of its devices.
    pub(super) fn known_as(&self, dataset: Uuid, origins: Vec<Origin>) -> Origins {
        let unknown = origins.iter().find_map(|origin| match origin {
            Origin::Alias { node, device: None } => Some(node),
            _ => None,
        });
        let known = KnownDevices {
            pinned: self.pins.device(dataset),
            node: unknown.and_then(|node| device_of_node(node)),
        };
        Origins { origins, known }
    }

    /// Returns the state of a dataset as one staging path shows it, where `top` is the visible mount, at a cost that does
    /// not grow with the number of mounts. Where else it is staged or published is left out.
    pub(super) fn state_at(
        &self,
        staged: &Staged,
        origins: &Origins,
        top: Option<&Mount>,
    ) -> Result<VolumeState> {
        let alias = match top {
            None => AliasView::Nothing,
            Some(top) if origins.own(top) => AliasView::Ours(Box::new(top.clone())),
            Some(_) => alias_view(layers(&staged.alias())?, |mount| origins.own(mount)),
        };
        self.state_of(staged, alias, None, self.recorded_elsewhere(staged, &[]))
    }

    /// Returns the state of a dataset on the whole node, as the mount table shows it.
    pub(super) fn state_in(&self, table: &MountTable, staged: &Staged) -> Result<VolumeState> {
        self.state_without(table, staged, &[])
    }

    /// Returns the state of a dataset after the stagings of these records ended with that of `staged`, which therefore
    /// stands for their leases.
    pub(super) fn state_after(&self, staged: &Staged, over: &[Record]) -> Result<VolumeState> {
        let mut state = self.state_without(&mount_table()?, staged, over)?;
        state.takes_lease |= over.iter().any(|record| record.takes_lease);
        Ok(state)
    }

    fn state_without(&self, table: &MountTable, staged: &Staged, over: &[Record]) -> Result<VolumeState> {
        let origins = self.origins(staged.dataset);
        let path = staged.alias();
        let layers: Vec<_> = table.layers_at(&path).into_iter().cloned().collect();
        let going = layers.last().and_then(|mount| table.place(mount));
        let mut alias = alias_view(layers, |mount| origins.own(mount));
        if let Some((mount, over)) = hidden(table, &origins, &path) {
            alias = AliasView::Hidden { mount, over };
        }
        // Propagation makes copies of the plugin's mount at other paths; they are unmounted with it.
        let goes_too = |mount: &Mount| mount.point == path || going.is_some() && table.place(mount) == going;
        let mut elsewhere = self.recorded_elsewhere(staged, over);
        let mut published_at = None;
        for mount in table
            .mounts()
            .iter()
            .filter(|mount| origins.are_used_by(mount) && !goes_too(mount))
        {
            if self.is_alias(table, staged.dataset, mount) {
                elsewhere.mounted = true;
            } else {
                published_at.get_or_insert_with(|| mount.point.clone());
            }
        }
        elsewhere.by_another_plugin = self.staged_by_another(table, staged.dataset, &origins);
        self.state_of(staged, alias, published_at, elsewhere)
    }

    fn state_of(
        &self,
        staged: &Staged,
        alias: AliasView,
        published_at: Option<PathBuf>,
        elsewhere: Elsewhere,
    ) -> Result<VolumeState> {
        let pin = self
            .pins
            .view(staged.dataset)
            .map_err(|error| Error::internal("see whether Flocker's mount is in place", error))?;
        Ok(observe(Evidence {
            record: self.records.get(staged.dataset, &staged.staging),
            boot: self.boot_id,
            alias,
            pin,
            published_at,
            elsewhere,
        }))
    }

    /// Returns what records say of other staging paths, apart from those of stagings that are over.
    fn recorded_elsewhere(&self, staged: &Staged, over: &[Record]) -> Elsewhere {
        let mut records = self.records.of(staged.dataset);
        records.retain(|record| !over.contains(record));
        let here = |record: &&Record| record.staging_path == staged.staging;
        let node = records.iter().find(here).and_then(|record| record.node_id);
        let recorded = records.iter().any(|record| {
            // A lease is one node's: a staging for another node does not need it, it waits for its release.
            let same_node = node.is_none_or(|node| record.node_id.is_none_or(|other| other == node));
            !here(&record) && same_node && record.may_be_mounted(self.boot_id)
        });
        Elsewhere {
            recorded,
            ..Elsewhere::default()
        }
    }

    /// Whether a mount of the plugin was made by staging, or is a copy of such a mount; publishing makes the rest.
    pub(super) fn is_alias(&self, table: &MountTable, dataset: Uuid, mount: &Mount) -> bool {
        let mut records = self.records.of(dataset);
        records.retain(|record| record.may_be_mounted(self.boot_id));
        records.iter().any(|record| {
            let alias = alias_path(&record.staging_path, dataset);
            let place = || {
                let alias = table.layers_at(&alias).pop()?;
                table.place(alias)
            };
            alias == mount.point || place().is_some_and(|place| table.place(mount) == Some(place))
        })
    }

    /// Whether another plugin of this node has the dataset staged: a mount of its device that is neither Flocker's nor
    /// this plugin's, shows the whole of it, and is named after the dataset as every plugin's alias is.
    fn staged_by_another(&self, table: &MountTable, dataset: Uuid, origins: &Origins) -> bool {
        if let Some(flocker) = self.pins.get(dataset) {
            return table.by_device(flocker.device).any(|mount| {
                mount.id != flocker.id
                    && mount.root == flocker.root
                    && mount.source != flocker.source
                    && !origins.own(mount)
                    && is_named_after(&mount.point, dataset)
            });
        }
        // Without the pin the device is not known.
        let mut others = table.mounts().iter().filter(|mount| !origins.own(mount));
        others.any(|mount| is_named_after(&mount.point, dataset) && is_from_plugins_node(mount, dataset))
    }
}

/// Whether a mount was made from a device node that this plugin or another one made for a dataset: plugins name it after
/// the dataset. The source of Flocker's own mount is the device itself.
pub(super) fn is_from_plugins_node(mount: &Mount, dataset: Uuid) -> bool {
    mount.device.is_block() && is_named_after(Path::new(&mount.source), dataset)
}

/// Returns a mount of the plugin at a path that cannot be reached, and the mount that hides it.
pub(super) fn hidden(table: &MountTable, origins: &Origins, path: &Path) -> Option<(Box<Mount>, Box<Mount>)> {
    let over = table.holding(path)?;
    // A mount under one of the plugin's is unmounted with it, or is found when that one is unmounted.
    if over.point == path && origins.own(over) {
        return None;
    }
    let mount = table
        .mounts()
        .iter()
        .find(|mount| mount.point == path && mount.id != over.id && origins.own(mount))?;
    Some((Box::new(mount.clone()), Box::new(over.clone())))
}

/// Returns the mounts one over the other at a path, the visible one last.
pub(super) fn layers(path: &Path) -> Result<Vec<Mount>> {
    layers_at(path)
        .map_err(|error| Error::internal(format!("see what is mounted at {}", path.display()), error))
}

/// Reads the whole mount table.
pub(super) fn mount_table() -> Result<MountTable> {
    MountTable::read().map_err(|error| Error::internal("read the mount table", error))
}

#[cfg(test)]
pub(super) mod tests;
