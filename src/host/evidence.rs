//! What records, mount table and pins say of a dataset at this moment.

use std::path::{Path, PathBuf};

use host_fs::mount::{Mount, MountTable, Target, layers_at};
use uuid::Uuid;

use super::Host;
use super::lifecycle::{AliasView, Elsewhere, Evidence, VolumeState, alias_view, observe};
use super::mount::{Origin, alias_path};
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
pub(super) struct Origins(Vec<Origin>);

impl Origins {
    /// Returns the origin that a mount has, if it is the plugin's mount of the dataset.
    pub(super) fn of(&self, mount: &Mount) -> Option<&Origin> {
        self.0.iter().find(|origin| origin.owns(mount))
    }

    /// Whether a mount is the plugin's mount of the dataset.
    pub(super) fn own(&self, mount: &Mount) -> bool {
        self.of(mount).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Origin> {
        self.0.iter()
    }
}

impl Host {
    /// Returns all origins of the plugin's mounts of a dataset.
    pub(super) fn origins(&self, dataset: Uuid) -> Origins {
        let mut origins: Vec<_> = self
            .records
            .of(dataset)
            .into_iter()
            .filter(|record| {
                // The kernel gives the number of an unmounted file system without a block device to another one.
                record.may_be_mounted(self.boot_id) || !matches!(record.origin, Some(Origin::Bind { .. }))
            })
            .filter_map(|record| record.origin)
            .collect();
        // The name of the device node identifies the plugin's mounts also when the records were lost.
        origins.push(self.usual_origin(dataset));
        origins.dedup();
        Origins(origins)
    }

    pub(super) fn usual_origin(&self, dataset: Uuid) -> Origin {
        Origin::Alias {
            node: self.aliases.nodes().path(dataset),
        }
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
        self.state_of(staged, alias, None, self.recorded_elsewhere(staged))
    }

    /// Returns the state of a dataset on the whole node, as the mount table shows it.
    pub(super) fn state_in(&self, table: &MountTable, staged: &Staged) -> Result<VolumeState> {
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
        let mut elsewhere = self.recorded_elsewhere(staged);
        let mut published_at = None;
        for mount in table
            .mounts()
            .iter()
            .filter(|mount| origins.own(mount) && !goes_too(mount))
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

    /// Returns what records say of other staging paths.
    pub(super) fn recorded_elsewhere(&self, staged: &Staged) -> Elsewhere {
        let records = self.records.of(staged.dataset);
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
        self.records.of(dataset).iter().any(|record| {
            let alias = alias_path(&record.staging_path, dataset);
            let place = || {
                let alias = table.layers_at(&alias).pop()?;
                table.place(alias)
            };
            alias == mount.point || place().is_some_and(|place| table.place(mount) == Some(place))
        })
    }

    /// Whether another plugin of this node has the dataset staged: a mount of the pinned device that is neither
    /// Flocker's nor this plugin's, and is named after the dataset as every plugin's alias is.
    fn staged_by_another(&self, table: &MountTable, dataset: Uuid, origins: &Origins) -> bool {
        let Some(flocker) = self.pins.get(dataset) else {
            return false;
        };
        let name = dataset.to_string();
        table.by_device(flocker.device).any(|mount| {
            mount.id != flocker.id
                && mount.source != flocker.source
                && !origins.own(mount)
                && mount.point.file_name().is_some_and(|last| last == name.as_str())
        })
    }
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
mod tests {
    use super::super::records::{RecordState, Records};
    use super::super::{HostSettings, boot};
    use super::*;
    use crate::telemetry::Counters;
    use host_fs::mount::testing::{in_own_namespace, tmpfs_named};

    #[test]
    fn a_file_system_that_has_the_number_of_an_unmounted_one_is_not_the_plugins() {
        in_own_namespace(|scratch| {
            let point = scratch.join("theirs");
            tmpfs_named("theirs", &point);
            let theirs = layers(&point).unwrap().pop().unwrap();
            let settings = HostSettings {
                mount_root: scratch.join("flocker"),
                state_dir: scratch.join("state"),
                device_dir: scratch.join("devices"),
                accept_unverified_propagation: false,
                socket_dir: None,
                counters: Counters::default(),
            };
            let (records, _) = Records::open(&settings.state_dir.join("stages")).unwrap();
            let (dataset, node) = (Uuid::from_u128(1), Uuid::from_u128(2));
            for boot in [Uuid::nil(), boot::boot_id(boot::BOOT_ID_FILE.as_ref()).unwrap()] {
                let record = Record {
                    origin: Some(Origin::Bind {
                        device: theirs.device,
                        root: theirs.root.clone(),
                        flocker: settings.mount_root.join(dataset.to_string()),
                    }),
                    state: RecordState::ReleasePending,
                    ..Record::staging(&scratch.join("staging"), "1", dataset, node, boot, true)
                };
                records.write(&record).unwrap();
                let (host, pending) = Host::open(&settings).unwrap();
                assert_eq!(pending.len(), 1);
                assert!(!host.origins(dataset).own(&theirs), "{boot}");
            }
        });
    }
}
