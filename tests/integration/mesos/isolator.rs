//! `volume/csi`: existing volumes, for the containers that name them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use super::failure::{Failure, failed};
use super::files::{decode, encode};
use super::task::{Mode, Task};
use super::types::Capability;
use super::volume_manager::{Plan, VolumeManager};
use super::volume_state::VolumeState;

/// A container that uses one volume.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) volume_id: String,
    pub(crate) capability: Capability,
    pub(crate) context: HashMap<String, String>,
    pub(crate) mode: Mode,
    /// The user of its task, unless that is root.
    pub(crate) user: Option<u32>,
}

impl Container {
    /// Makes one that reads and writes as root.
    pub(crate) fn new(id: &str, volume_id: &str) -> Self {
        Self {
            id: id.to_owned(),
            volume_id: volume_id.to_owned(),
            capability: Capability::writer(),
            context: HashMap::new(),
            mode: Mode::Rw,
            user: None,
        }
    }
}

/// The isolator and the CSI server of one agent, with one plugin.
pub(crate) struct Isolator {
    plan: Plan,
    /// `None` until the plugin has answered, and after a failed answer.
    manager: Option<VolumeManager>,
    /// `<work_dir>/isolators/volume/csi`: a directory for each container.
    directory: PathBuf,
    sandboxes: PathBuf,
    /// The volumes of each container.
    containers: BTreeMap<String, BTreeSet<String>>,
}

impl Isolator {
    /// Starts on an agent with the containers that still run there, and cleans up after all other containers.
    pub(crate) async fn start(plan: Plan, work_dir: &Path, running: &[&str]) -> Result<Self, Failure> {
        let mut isolator = Self {
            plan,
            manager: None,
            directory: work_dir.join("isolators/volume/csi"),
            sandboxes: work_dir.join("sandboxes"),
            containers: BTreeMap::new(),
        };
        fs::create_dir_all(&isolator.directory).unwrap();
        let mut gone = Vec::new();
        for entry in fs::read_dir(&isolator.directory).unwrap() {
            let entry = entry.unwrap();
            let id = entry.file_name().into_string().unwrap();
            let volumes = fs::read_to_string(entry.path().join("volumes")).unwrap();
            isolator
                .containers
                .insert(id.clone(), volumes.lines().map(decode).collect());
            gone.extend((!running.contains(&&*id)).then_some(id));
        }
        // Whether the plugin runs is not decisive yet.
        let started = isolator.manager().await.map(drop);
        for id in gone {
            isolator.clean_up(&id).await?;
        }
        if !isolator.containers.is_empty() {
            started?;
        }
        Ok(isolator)
    }

    /// Prepares a container and starts its task, which has the volume in its working directory. Returns the task and the
    /// output of `command`.
    pub(crate) async fn launch(
        &mut self,
        container: &Container,
        command: &str,
    ) -> Result<(Task, String), Failure> {
        match self.try_launch(container, command).await {
            Ok(launched) => Ok(launched),
            Err(failure) => {
                let failure = failure.context("Failed to launch container");
                match self.clean_up(&container.id).await {
                    Ok(()) => Err(failure),
                    Err(left) => Err(left.context(&failure.to_string())),
                }
            }
        }
    }

    async fn try_launch(&mut self, container: &Container, command: &str) -> Result<(Task, String), Failure> {
        let published = self.prepare(container).await?;
        let sandbox = self.sandboxes.join(&container.id).join("data");
        fs::create_dir_all(&sandbox).unwrap();
        Task::start(&published, &sandbox, container.mode, container.user, command).await
    }

    /// Publishes the volume of a container, and returns where.
    async fn prepare(&mut self, container: &Container) -> Result<PathBuf, Failure> {
        let Container { id, volume_id, .. } = container;
        let volumes = self.directory.join(id).join("volumes");
        fs::create_dir_all(volumes.parent().unwrap()).unwrap();
        fs::write(&volumes, encode(volume_id)).unwrap();
        let others_use_it = self
            .containers
            .values()
            .any(|volumes| volumes.contains(volume_id));
        self.containers
            .insert(id.clone(), BTreeSet::from([volume_id.clone()]));
        let state = VolumeState::pre_provisioned(
            container.capability.clone(),
            container.context.clone(),
            container.mode == Mode::Ro,
        );
        let manager = self.manager().await?;
        manager.publish_pre_provisioned(volume_id, state).await?;
        let target = manager.target(volume_id);
        if let Some(user) = container.user.filter(|_| !others_use_it) {
            let at = target.display();
            chown(&target, Some(user), Some(user)).or_else(|error| {
                failed(format!(
                    "Failed to change the ownership of the CSI volume at '{at}' with UID {user} and GID {user}: {error}"
                ))
            })?;
        }
        Ok(target)
    }

    /// Cleans up after a container. Its volume is unpublished when no other one uses it.
    pub(crate) async fn clean_up(&mut self, id: &str) -> Result<(), Failure> {
        let Some(volumes) = self.containers.remove(id) else {
            return Ok(());
        };
        let words = "Failed to clean up an isolator when destroying container";
        for volume_id in volumes {
            if self.containers.values().any(|others| others.contains(&volume_id)) {
                continue;
            }
            let manager = self.manager().await.map_err(|failure| failure.context(words))?;
            let unpublished = manager.unpublish(&volume_id).await;
            unpublished.map_err(|failure| failure.context(words))?;
        }
        fs::remove_dir_all(self.directory.join(id)).unwrap();
        Ok(())
    }

    /// Returns the volumes of the plugin, which is called now unless it has answered before.
    async fn manager(&mut self) -> Result<&mut VolumeManager, Failure> {
        if self.manager.is_none() {
            self.manager = Some(VolumeManager::start(self.plan.clone()).await?);
        }
        Ok(self.manager.as_mut().expect("it was just started"))
    }

    /// Returns the volumes.
    pub(crate) fn volumes(&self) -> &VolumeManager {
        self.manager.as_ref().expect("the plugin has answered")
    }

    /// Returns the names of the calls since the last time.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.plan.calls.take_made()
    }
}
