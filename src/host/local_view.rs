//! What this machine knows of volumes, read beside a plugin that may be running: nothing is changed or locked.
//!
//! It is read from the records in `state_dir` and from the mount table of this process.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use host_fs::mount::{FileSystemUse, Mount, MountTable, UseSearch, file_system_id};
use uuid::Uuid;

use super::boot::{BOOT_ID_FILE, boot_id};
use super::evidence::mount_table;
use super::mount::{
    DeviceNodes, KnownDevices, Origin, Ownership, alias_path, device_of_node, is_named_after,
};
use super::records::{self, Record, RecordError, RecordState};
use super::state_dir;
use crate::error::{Error, Result, Situation};
use crate::volume::dataset_of;

/// The directories that it is read from.
#[derive(Clone, Debug)]
pub(crate) struct LocalDirectories {
    /// The directory below which Flocker mounts datasets.
    pub(crate) mount_root: PathBuf,
    /// The directory of the staging records.
    pub(crate) state_dir: PathBuf,
    /// The directory of the plugin's device nodes.
    pub(crate) device_dir: PathBuf,
}

/// What this machine knows of all volumes at one moment.
#[derive(Debug)]
pub(crate) struct LocalView {
    directories: LocalDirectories,
    boot_id: Uuid,
    records: BTreeMap<Uuid, Vec<Record>>,
    unreadable: Vec<RecordError>,
    table: MountTable,
    /// The mounts of each dataset, by their places in the table.
    mounts: BTreeMap<Uuid, Vec<usize>>,
}

/// What this machine knows of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalVolume {
    /// Where it is staged, is being staged, or was staged under a lease that is still to be released.
    pub(crate) stagings: Vec<Staging>,
    /// The targets at which it is published.
    pub(crate) targets: Vec<PathBuf>,
    /// Where Flocker has mounted it.
    pub(crate) flockers_mount: Option<PathBuf>,
}

/// A volume at one staging path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Staging {
    /// The staging path.
    pub(crate) path: PathBuf,
    /// How far it is.
    pub(crate) state: StagingState,
    /// The node under whose lease it is staged, if a record names it.
    pub(crate) node: Option<Uuid>,
    /// When its record was written last.
    pub(crate) since: Option<SystemTime>,
}

/// How far a staging is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StagingState {
    /// It has begun.
    Staging,
    /// The volume is mounted there.
    Staged,
    /// The record says that the volume is mounted there, and it is not.
    NotMounted,
    /// The volume is mounted there, and no record says so.
    NotRecorded,
    /// It is over, and its lease is still to be released.
    ReleasePending,
    /// It is one of an earlier boot of the machine.
    EarlierBoot,
}

impl StagingState {
    /// Returns the name in output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Staged => "staged",
            Self::NotMounted => "not-mounted",
            Self::NotRecorded => "not-recorded",
            Self::ReleasePending => "release-pending",
            Self::EarlierBoot => "earlier-boot",
        }
    }

    /// Whether the volume may be in use for it.
    pub(crate) fn is_use(self) -> bool {
        match self {
            Self::Staging | Self::Staged | Self::NotMounted | Self::NotRecorded => true,
            Self::ReleasePending | Self::EarlierBoot => false,
        }
    }
}

impl LocalVolume {
    /// Whether it is staged, is being staged, or is published.
    pub(crate) fn is_used(&self) -> bool {
        !self.targets.is_empty() || self.stagings.iter().any(|staging| staging.state.is_use())
    }

    /// Returns since when it is staged under a lease of a node, as far as records say.
    pub(crate) fn staged_since(&self, node: Uuid) -> Option<SystemTime> {
        let of_node = |staging: &&Staging| staging.node == Some(node) && staging.state.is_use();
        let stagings = self.stagings.iter().filter(of_node);
        stagings.filter_map(|staging| staging.since).min()
    }
}

impl LocalView {
    /// Reads records and mount table. Blocks.
    ///
    /// # Errors
    /// The boot id, the mount table or the list of records cannot be read.
    pub(crate) fn read(directories: LocalDirectories) -> Result<Self> {
        let boot_id = boot_id(BOOT_ID_FILE.as_ref())
            .map_err(|error| Error::internal("read the boot id of this machine", error))?;
        let stages = state_dir::stages(&directories.state_dir);
        let (found, unreadable) = match records::read_all(&stages) {
            Err(RecordError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Default::default(),
            read => read.map_err(|error| Error::of(Situation::Internal, &error))?,
        };
        let mut recorded: BTreeMap<Uuid, Vec<Record>> = BTreeMap::new();
        for record in found {
            recorded.entry(record.dataset_id).or_default().push(record);
        }
        let mut view = Self {
            directories,
            boot_id,
            records: recorded,
            unreadable,
            table: mount_table()?,
            mounts: BTreeMap::new(),
        };
        view.sort_mounts();
        Ok(view)
    }

    /// Returns the records that cannot be read.
    pub(crate) fn unreadable_records(&self) -> &[RecordError] {
        &self.unreadable
    }

    /// Returns the directories that it was read from.
    pub(super) fn directories(&self) -> &LocalDirectories {
        &self.directories
    }

    /// Returns the boot of the machine in which it was read.
    pub(super) fn boot_id(&self) -> Uuid {
        self.boot_id
    }

    /// Returns the records, ordered by dataset.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values().flatten()
    }

    /// Returns the records of a dataset.
    pub(super) fn records_of(&self, dataset: Uuid) -> &[Record] {
        self.records.get(&dataset).map_or(&[], Vec::as_slice)
    }

    /// Returns the path that the plugin's device node of a dataset has.
    pub(super) fn device_node(&self, dataset: Uuid) -> PathBuf {
        DeviceNodes::new(&self.directories.device_dir).path(dataset)
    }

    /// Returns the ids of the mounts of a dataset that Flocker's agent has made.
    pub(super) fn flockers_mounts(&self, dataset: Uuid) -> Vec<u64> {
        let mounts = self.mounts_of(dataset);
        let flockers = mounts.filter(|mount| self.is_flockers(mount, dataset));
        flockers.map(|mount| mount.id).collect()
    }

    /// Returns the datasets that have a record or a mount here.
    pub(crate) fn datasets(&self) -> BTreeSet<Uuid> {
        self.records.keys().chain(self.mounts.keys()).copied().collect()
    }

    /// Returns what is known of a dataset.
    pub(crate) fn of(&self, dataset: Uuid) -> LocalVolume {
        let mut volume = LocalVolume::default();
        let records = self.records_of(dataset);
        let mut unrecorded = Vec::new();
        let mut mounted = BTreeSet::new();
        let alias_of = |mount: &Mount| {
            let place = self.table.place(mount);
            records.iter().find(|record| {
                let alias = alias_path(&record.staging_path, dataset);
                let of_alias = || self.table.place(self.table.layers_at(&alias).pop()?);
                alias == mount.point || place.is_some() && of_alias() == place
            })
        };
        for mount in self.mounts_of(dataset) {
            if self.is_flockers(mount, dataset) {
                volume.flockers_mount = Some(mount.point.clone());
            } else if let Some(record) = alias_of(mount) {
                mounted.insert(record.staging_path.clone());
            } else if is_named_after(&mount.point, dataset) && records.is_empty() {
                unrecorded.extend(mount.point.parent().map(Path::to_owned));
            } else {
                volume.targets.push(mount.point.clone());
            }
        }
        let stages = state_dir::stages(&self.directories.state_dir);
        volume.stagings = records
            .iter()
            .map(|record| Staging {
                path: record.staging_path.clone(),
                state: self.state_of(record, mounted.contains(&record.staging_path)),
                node: record.node_id,
                since: records::written_at(&stages, record),
            })
            .collect();
        volume.stagings.extend(unrecorded.into_iter().map(|path| Staging {
            path,
            state: StagingState::NotRecorded,
            node: None,
            since: None,
        }));
        volume
    }

    /// Returns what on this machine uses a volume beside Flocker itself, in words; `None` if nothing does. Blocks for five
    /// seconds at most.
    pub(crate) fn use_of(&self, dataset: Uuid) -> Option<String> {
        let volume = self.of(dataset);
        if let Some(target) = volume.targets.first() {
            return Some(format!("it is published at {}", target.display()));
        }
        if let Some(staging) = volume.stagings.iter().find(|staging| staging.state.is_use()) {
            return Some(format!("it is staged at {}", staging.path.display()));
        }
        let flockers = self
            .mounts_of(dataset)
            .find(|mount| self.is_flockers(mount, dataset))?;
        let subject = FileSystemUse {
            device: Some(flockers.device),
            node_name: dataset.to_string().into(),
            known: vec![flockers.id],
            ..FileSystemUse::default()
        };
        UseSearch::default().find(&subject)
    }

    fn state_of(&self, record: &Record, mounted: bool) -> StagingState {
        match record.state {
            _ if record.boot_id != self.boot_id => StagingState::EarlierBoot,
            RecordState::ReleasePending => StagingState::ReleasePending,
            RecordState::Staging => StagingState::Staging,
            RecordState::Staged if mounted => StagingState::Staged,
            RecordState::Staged => StagingState::NotMounted,
        }
    }

    pub(super) fn mounts_of(&self, dataset: Uuid) -> impl Iterator<Item = &Mount> {
        let places = self.mounts.get(&dataset).map_or(&[][..], Vec::as_slice);
        places.iter().filter_map(|place| self.table.mounts().get(*place))
    }

    /// Whether a mount is the one that Flocker's agent has made.
    pub(super) fn is_flockers(&self, mount: &Mount, dataset: Uuid) -> bool {
        mount.point.parent() == Some(&self.directories.mount_root)
            && is_named_after(&mount.point, dataset)
            && !is_named_after(Path::new(&mount.source), dataset)
    }

    /// Finds the mounts of each dataset.
    fn sort_mounts(&mut self) {
        let nodes = DeviceNodes::new(&self.directories.device_dir);
        let named = |path: &Path| dataset_of(path.file_name()?.to_str()?);
        // Only those without a device node of their own have to be compared with every mount.
        let binds: Vec<_> = (self.records.values().flatten())
            .flat_map(|record| {
                record
                    .origins(self.boot_id)
                    .map(|origin| (record.dataset_id, origin))
            })
            .filter(|(_, origin)| matches!(origin, Origin::Bind { .. }))
            .collect();
        let mut sorted: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
        for (place, mount) in self.table.mounts().iter().enumerate() {
            let by_point = || named(&mount.point).filter(|dataset| self.is_flockers(mount, *dataset));
            let by_source = || {
                let dataset = named(Path::new(&mount.source))?;
                let unrecorded = Origin::Alias {
                    node: nodes.path(dataset),
                    device: None,
                };
                let records = self.records.get(&dataset);
                let mut recorded = records
                    .into_iter()
                    .flatten()
                    .flat_map(|record| record.origins(self.boot_id));
                (recorded.any(|origin| is_of(origin, mount)) || is_of(&unrecorded, mount)).then_some(dataset)
            };
            let by_record = || Some(binds.iter().find(|(_, origin)| is_of(origin, mount))?.0);
            if let Some(dataset) = by_point().or_else(by_source).or_else(by_record) {
                sorted.entry(dataset).or_default().push(place);
            }
        }
        self.mounts = sorted;
    }
}

/// Whether a mount of this origin shows a volume or a part of it.
fn is_of(origin: &Origin, mount: &Mount) -> bool {
    let node = match origin {
        Origin::Alias { node, device: None } => device_of_node(node),
        _ => None,
    };
    let known = KnownDevices { pinned: None, node };
    origin.ownership(mount, known, file_system_id) >= Ownership::InUse
}
