//! A storage local resource provider: the disks that an agent offers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::failure::{Failure, failed};
use super::files::{Root, delete_recursively};
use super::types::{Capability, VolumeInfo};
use super::volume_manager::{Plan, VolumeManager};

/// The usage of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Space of a pool, or a volume that no framework uses yet.
    Raw,
    /// A file system.
    Mount,
}

/// A disk in an offer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Disk {
    pub(crate) kind: Kind,
    /// The volume; a pool has none.
    pub(crate) id: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) bytes: i64,
    /// The volume's context.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A profile that the operator has defined: how volumes are used, and how they are created.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) capability: Capability,
    pub(crate) parameters: HashMap<String, String>,
}

/// The stored state of one agent id.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct StoredState {
    disks: Vec<Disk>,
    /// The `CREATE_DISK` that began last and has not ended: name, profile, size.
    pending: Option<(Uuid, String, i64)>,
}

/// The provider of one plugin on one agent.
pub(crate) struct Provider {
    pub(crate) manager: VolumeManager,
    profiles: BTreeMap<String, Profile>,
    kept: StoredState,
    file: PathBuf,
}

/// The changes that a read of the plugin's resources found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) added: Vec<Disk>,
    pub(crate) removed: Vec<Disk>,
    /// Volumes whose context has changed.
    pub(crate) relabelled: Vec<String>,
}

impl Provider {
    /// Starts for an agent id, whose state is in `file`, and resumes pending operations.
    pub(crate) async fn start(
        plan: Plan,
        file: PathBuf,
        profiles: BTreeMap<String, Profile>,
    ) -> Result<Self, Failure> {
        let manager = VolumeManager::start(plan).await?;
        let kept = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).unwrap(),
            Err(_) => StoredState::default(),
        };
        let mut provider = Self {
            manager,
            profiles: BTreeMap::new(),
            kept,
            file,
        };
        if let Some((name, profile, bytes)) = provider.kept.pending.clone() {
            // Operations are resumed with the profiles with which they were accepted.
            provider.profiles.clone_from(&profiles);
            provider.create(name, &profile, bytes).await?;
            provider.profiles.clear();
        }
        // Profiles arrive later than the plugin.
        provider.reconcile().await?;
        if !profiles.is_empty() {
            provider.set_profiles(profiles).await?;
        }
        Ok(provider)
    }

    /// Loads other profiles.
    pub(crate) async fn set_profiles(
        &mut self,
        profiles: BTreeMap<String, Profile>,
    ) -> Result<Changes, Failure> {
        self.profiles = profiles;
        self.reconcile().await
    }

    /// Reads the plugin's resources, as every ten seconds and after each operation.
    pub(crate) async fn reconcile(&mut self) -> Result<Changes, Failure> {
        let room = async {
            let mut pools = Vec::new();
            for (name, profile) in &self.profiles {
                let bytes = self
                    .manager
                    .capacity(&profile.capability, &profile.parameters)
                    .await?;
                pools.extend((bytes > 0).then(|| Disk::pool(name, bytes)));
            }
            Ok::<_, Failure>(pools)
        };
        let (listed, pools) = tokio::join!(self.manager.list(), room);
        let (listed, pools) = (listed?, pools?);
        let mut changes = self.compare_volumes(listed)?;
        self.replace_pools(pools, &mut changes);
        self.keep();
        Ok(changes)
    }

    fn compare_volumes(&mut self, listed: Vec<VolumeInfo>) -> Result<Changes, Failure> {
        let mut changes = Changes::default();
        let mut seen = BTreeSet::new();
        for volume in listed {
            if !seen.insert(volume.id.clone()) {
                let id = volume.id;
                return failed(format!(
                    "Dropping duplicated volume '{id}' from the discovered resources"
                ));
            }
            let metadata: BTreeMap<_, _> = volume.context.into_iter().collect();
            let known = self
                .kept
                .disks
                .iter_mut()
                .find(|disk| disk.id.as_ref() == Some(&volume.id));
            let Some(disk) = known else {
                let disk = Disk {
                    kind: Kind::Raw,
                    id: Some(volume.id),
                    profile: None,
                    bytes: volume.bytes,
                    metadata,
                };
                changes.added.push(disk.clone());
                self.kept.disks.push(disk);
                continue;
            };
            if disk.metadata != metadata {
                changes.relabelled.push(volume.id.clone());
                disk.metadata = metadata;
            }
            if disk.bytes != volume.bytes && disk.kind == Kind::Mount {
                return missing(&volume.id);
            }
            disk.bytes = volume.bytes;
        }
        for disk in &self.kept.disks {
            let Some(id) = disk.id.as_ref().filter(|id| !seen.contains(*id)) else {
                continue;
            };
            if disk.kind == Kind::Mount {
                return missing(id);
            }
            changes.removed.push(disk.clone());
        }
        self.kept.disks.retain(|disk| !changes.removed.contains(disk));
        Ok(changes)
    }

    fn replace_pools(&mut self, pools: Vec<Disk>, changes: &mut Changes) {
        let (old, mut disks): (Vec<_>, Vec<_>) =
            self.kept.disks.drain(..).partition(|disk| disk.id.is_none());
        let without = |these: &[Disk], those: &[Disk]| -> Vec<Disk> {
            let others = these.iter().filter(|disk| !those.contains(disk));
            others.cloned().collect()
        };
        changes.removed.extend(without(&old, &pools));
        changes.added.extend(without(&pools, &old));
        disks.extend(pools);
        disks.sort();
        self.kept.disks = disks;
    }

    /// `CREATE_DISK` from the pool of a profile. Returns the volume.
    pub(crate) async fn create_disk(&mut self, profile: &str, bytes: i64) -> Result<String, Failure> {
        let name = Uuid::new_v4();
        self.kept.pending = Some((name, profile.to_owned(), bytes));
        self.keep();
        let created = self.create(name, profile, bytes).await;
        self.reconcile().await?;
        created
    }

    async fn create(&mut self, name: Uuid, profile: &str, bytes: i64) -> Result<String, Failure> {
        let created = match self.profiles.get(profile).cloned() {
            Some(Profile {
                capability,
                parameters,
            }) => {
                let name = name.to_string();
                self.manager.create(&name, bytes, &capability, &parameters).await
            }
            None => failed(format!("Profile '{profile}' not found")),
        };
        self.kept.pending = None;
        self.keep();
        let volume = created?;
        self.kept.disks.push(Disk {
            kind: Kind::Mount,
            id: Some(volume.id.clone()),
            profile: Some(profile.to_owned()),
            bytes,
            metadata: volume.context.into_iter().collect(),
        });
        self.keep();
        Ok(volume.id)
    }

    /// `CREATE_DISK` from a volume that existed before, with a profile for it.
    pub(crate) async fn adopt_disk(&mut self, volume_id: &str, profile: &str) -> Result<(), Failure> {
        let disk = self.disk(volume_id);
        let volume = VolumeInfo {
            id: volume_id.to_owned(),
            bytes: disk.bytes,
            context: disk.metadata.into_iter().collect(),
        };
        let Some(Profile {
            capability,
            parameters,
        }) = self.profiles.get(profile).cloned()
        else {
            return failed(format!("Profile '{profile}' not found"));
        };
        let words = format!("Cannot apply profile '{profile}' to resource '{volume_id}'");
        let validated = self.manager.validate(&volume, &capability, &parameters).await;
        validated.map_err(|failure| failure.context(&words))?;
        let mut disks = self.kept.disks.iter_mut();
        let disk = disks.find(|disk| disk.id.as_deref() == Some(volume_id)).unwrap();
        disk.kind = Kind::Mount;
        disk.profile = Some(profile.to_owned());
        self.keep();
        Ok(())
    }

    /// Publishes a volume for a task, and returns the path.
    pub(crate) async fn launch(&mut self, volume_id: &str) -> Result<PathBuf, Failure> {
        if self.disk(volume_id).kind == Kind::Raw {
            return failed("Cannot publish volume of RAW type");
        }
        let published = self.manager.publish(volume_id).await;
        published
            .map_err(|failure| failure.context(&format!("Failed to publish resources '{volume_id}'")))?;
        Ok(self.manager.target(volume_id))
    }

    /// `DESTROY`: deletes the files of a persistent volume, and makes no call.
    pub(crate) fn destroy(&mut self, volume_id: &str) -> Result<(), Failure> {
        let target = self.manager.target(volume_id);
        if !target.exists() {
            return Ok(());
        }
        let at = target.display();
        delete_recursively(&target, Root::Kept).or_else(|error| {
            failed(format!(
                "Failed to remove persistent volume '{volume_id}' at '{at}': {error}"
            ))
        })
    }

    /// `DESTROY_DISK`: deletes a volume, and returns its space to the pool.
    pub(crate) async fn destroy_disk(&mut self, volume_id: &str) -> Result<(), Failure> {
        self.manager.delete(volume_id).await?;
        self.kept
            .disks
            .retain(|disk| disk.id.as_deref() != Some(volume_id));
        self.keep();
        self.reconcile().await?;
        Ok(())
    }

    /// Returns the offered resources.
    pub(crate) fn offers(&self) -> &[Disk] {
        &self.kept.disks
    }

    /// Returns the offered space of a profile, in bytes.
    pub(crate) fn pool(&self, profile: &str) -> i64 {
        let pools = self.kept.disks.iter().filter(|disk| disk.id.is_none());
        let mut pools = pools.filter(|disk| disk.profile.as_deref() == Some(profile));
        pools.next().map_or(0, |disk| disk.bytes)
    }

    /// Returns the disk of a volume.
    pub(crate) fn disk(&self, volume_id: &str) -> Disk {
        let mut disks = self.kept.disks.iter();
        let disk = disks.find(|disk| disk.id.as_deref() == Some(volume_id));
        disk.expect("it is offered").clone()
    }

    /// Returns the names of the calls since the last time.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.manager.calls().take_made()
    }

    fn keep(&self) {
        fs::create_dir_all(self.file.parent().unwrap()).unwrap();
        fs::write(&self.file, serde_json::to_vec(&self.kept).unwrap()).unwrap();
    }
}

impl Disk {
    fn pool(profile: &str, bytes: i64) -> Self {
        Self {
            kind: Kind::Raw,
            id: None,
            profile: Some(profile.to_owned()),
            bytes,
            metadata: BTreeMap::new(),
        }
    }
}

fn missing<T>(volume_id: &str) -> Result<T, Failure> {
    failed(format!(
        "Missing converted resource '{volume_id}'. This might cause further operations to fail."
    ))
}
