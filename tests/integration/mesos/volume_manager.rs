//! How Mesos moves a volume from state to state, for resource providers and for `volume/csi`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;

use super::client::{Client, Number, Usage};
use super::failure::{Failure, failed};
use super::files::{Root, collect_garbage, decode, delete_recursively, encode};
use super::rpc::Calls;
use super::service_manager::{Release, connect};
use super::types::{Api, Capability, VolumeInfo};
use super::volume_state::{State, VolumeState};
use crate::support::mounts::Mounts;

/// Capabilities of the controller that have the same numbers in both versions of CSI.
pub(crate) mod controller {
    use super::Number;

    pub(crate) const CREATE_DELETE_VOLUME: Number = 1;
    pub(crate) const PUBLISH_UNPUBLISH_VOLUME: Number = 2;
    pub(crate) const LIST_VOLUMES: Number = 3;
    pub(crate) const GET_CAPACITY: Number = 4;
}
/// The same of the node.
const STAGE_UNSTAGE_VOLUME: Number = 1;

/// An agent's settings for a plugin.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) release: Release,
    pub(crate) calls: Calls,
    /// Whether the configuration names the controller service; it always names the node service.
    pub(crate) controller: bool,
    /// `<work_dir>/csi/<type>/<name>`.
    pub(crate) root: PathBuf,
    /// `target_path_root`, or `mounts` below `root`.
    pub(crate) mount_root: PathBuf,
    pub(crate) boot_id: String,
}

/// The volumes of one plugin on one agent.
pub(crate) struct VolumeManager {
    plan: Plan,
    client: Client,
    controller: BTreeSet<Number>,
    node: BTreeSet<Number>,
    /// Known where the controller service attaches volumes.
    node_id: Option<String>,
    volumes: BTreeMap<String, VolumeState>,
}

impl VolumeManager {
    /// Starts with a plugin: reads its capabilities, loads the stored states, and deletes the directories of unknown
    /// volumes.
    pub(crate) async fn start(plan: Plan) -> Result<Self, Failure> {
        let client = connect(plan.release, plan.calls.clone()).await?;
        let mut manager = Self {
            plan,
            client,
            controller: BTreeSet::new(),
            node: BTreeSet::new(),
            node_id: None,
            volumes: BTreeMap::new(),
        };
        manager.prepare_services().await?;
        manager.recover().await?;
        Ok(manager)
    }

    async fn prepare_services(&mut self) -> Result<(), Failure> {
        let offers_controller = self.client.offers_controller().await?;
        if self.plan.controller && !offers_controller {
            return failed("CONTROLLER_SERVICE plugin capability is not supported for CSI plugin");
        }
        if self.plan.controller {
            let (one, two) = tokio::join!(self.client.info(), self.client.info());
            if one? != two? {
                return failed("Inconsistent plugin services");
            }
            self.controller = self.client.controller_capabilities().await?;
        } else {
            self.client.info().await?;
        }
        self.node = self.client.node_capabilities().await?;
        if self.can(controller::PUBLISH_UNPUBLISH_VOLUME) {
            self.node_id = Some(self.client.node_id().await?);
        }
        Ok(())
    }

    async fn recover(&mut self) -> Result<(), Failure> {
        for name in names_in(&self.plan.root.join("volumes")) {
            let volume_id = decode(&name);
            let file = self.state_file(&volume_id);
            if !file.exists() {
                continue;
            }
            let mut volume = VolumeState::read(&file);
            if volume.state.ends_with_the_boot() && volume.boot_id.as_ref() != Some(&self.plan.boot_id) {
                volume.state = State::NodeReady;
                volume.boot_id = None;
            }
            self.volumes.insert(volume_id, volume);
        }
        for name in names_in(&self.plan.mount_root) {
            if !self.volumes.contains_key(&decode(&name)) {
                collect_garbage(&self.plan.mount_root.join(name))?;
            }
        }
        let required =
            |(id, volume): (&String, &VolumeState)| volume.node_publish_required.then(|| id.clone());
        let required: Vec<_> = self.volumes.iter().filter_map(required).collect();
        for volume_id in required {
            self.publish(&volume_id).await?;
        }
        Ok(())
    }

    fn can(&self, rpc: Number) -> bool {
        self.controller.contains(&rpc)
    }

    fn stages(&self) -> bool {
        self.node.contains(&STAGE_UNSTAGE_VOLUME)
    }

    /// Returns all volumes that the plugin lists.
    pub(crate) async fn list(&self) -> Result<Vec<VolumeInfo>, Failure> {
        if !self.can(controller::LIST_VOLUMES) {
            return Ok(Vec::new());
        }
        self.client.list_volumes().await
    }

    /// Returns the space for volumes of a profile, in bytes.
    pub(crate) async fn capacity(
        &self,
        capability: &Capability,
        parameters: &HashMap<String, String>,
    ) -> Result<i64, Failure> {
        if !self.can(controller::GET_CAPACITY) {
            return Ok(0);
        }
        self.client.capacity(capability, parameters).await
    }

    /// Creates a volume and keeps track of it. The size in the plugin's answer is ignored.
    pub(crate) async fn create(
        &mut self,
        name: &str,
        bytes: i64,
        capability: &Capability,
        parameters: &HashMap<String, String>,
    ) -> Result<VolumeInfo, Failure> {
        if !self.can(controller::CREATE_DELETE_VOLUME) {
            return failed("CREATE_DELETE_VOLUME controller capability is not supported for CSI plugin");
        }
        let created = self.client.create(name, bytes, capability, parameters).await?;
        if self.volumes.contains_key(&created.id) {
            return failed(format!("Volume with name '{name}' already exists"));
        }
        let state = VolumeState::created(capability.clone(), parameters.clone(), created.context.clone());
        self.track(&created.id, state);
        Ok(VolumeInfo { bytes, ..created })
    }

    /// Adopts an existing volume, if the plugin confirms its capability.
    pub(crate) async fn validate(
        &mut self,
        volume: &VolumeInfo,
        capability: &Capability,
        parameters: &HashMap<String, String>,
    ) -> Result<(), Failure> {
        let id = &volume.id;
        if let Some(known) = self.volumes.get(id) {
            if known.capability != *capability {
                return failed(format!("Unsupported volume capability for volume '{id}'"));
            }
            if known.parameters != *parameters {
                return failed(format!("Mismatched parameters for volume '{id}'"));
            }
            return Ok(());
        }
        if let Some(message) = self.client.validate(volume, capability, parameters).await? {
            return failed(format!("Validation failed for volume '{id}': {message}"));
        }
        let state = VolumeState::created(capability.clone(), parameters.clone(), volume.context.clone());
        self.track(id, state);
        Ok(())
    }

    /// Publishes a volume, from any state; a published one needs no call.
    pub(crate) async fn publish(&mut self, volume_id: &str) -> Result<(), Failure> {
        loop {
            match self.state(volume_id, "publish")? {
                State::Published => return self.still_published(volume_id),
                State::VolReady | State::NodePublish => self.node_publish(volume_id).await?,
                State::NodeUnpublish => self.node_unpublish(volume_id).await?,
                State::NodeReady | State::NodeStage => self.node_stage(volume_id).await?,
                State::NodeUnstage => self.node_unstage(volume_id).await?,
                State::Created | State::ControllerPublish => self.controller_publish(volume_id).await?,
                State::ControllerUnpublish => self.controller_unpublish(volume_id).await?,
            }
        }
    }

    /// Publishes an existing volume for a new container: from the beginning, even if another container uses it.
    pub(crate) async fn publish_pre_provisioned(
        &mut self,
        volume_id: &str,
        state: VolumeState,
    ) -> Result<(), Failure> {
        self.track(volume_id, state);
        self.publish(volume_id).await
    }

    /// Unpublishes and unstages a volume; Mesos then forgets one that it did not create.
    pub(crate) async fn unpublish(&mut self, volume_id: &str) -> Result<(), Failure> {
        loop {
            match self.state(volume_id, "unpublish")? {
                State::NodeReady if self.volume(volume_id).pre_provisioned => return self.forget(volume_id),
                State::NodeReady => return Ok(()),
                State::VolReady | State::NodeStage | State::NodeUnstage => {
                    self.node_unstage(volume_id).await?;
                    if !self.volumes.contains_key(volume_id) {
                        return Ok(());
                    }
                }
                State::Published | State::NodePublish | State::NodeUnpublish => {
                    self.node_unpublish(volume_id).await?;
                }
                state => {
                    return failed(format!(
                        "Cannot unpublish volume '{volume_id}' in {state:?} state"
                    ));
                }
            }
        }
    }

    /// Deletes a volume with its data, also one that another client created.
    pub(crate) async fn delete(&mut self, volume_id: &str) -> Result<(), Failure> {
        if !self.volumes.contains_key(volume_id) {
            return self.client.delete(volume_id).await;
        }
        if self.volume(volume_id).node_publish_required {
            assert_eq!(self.volume(volume_id).state, State::Published);
            let target = self.target(volume_id);
            delete_recursively(&target, Root::Kept)
                .or_else(|error| failed(format!("Failed to clean up volume '{volume_id}': {error}")))?;
            self.change(volume_id, |volume| volume.node_publish_required = false);
        }
        loop {
            match self.state(volume_id, "detach")? {
                State::Created => break,
                State::NodeReady | State::ControllerPublish | State::ControllerUnpublish => {
                    self.controller_unpublish(volume_id).await?;
                }
                _ => self.unpublish(volume_id).await?,
            }
        }
        self.client.delete(volume_id).await?;
        self.forget(volume_id)
    }

    async fn controller_publish(&mut self, volume_id: &str) -> Result<(), Failure> {
        let context = if self.can(controller::PUBLISH_UNPUBLISH_VOLUME) {
            self.enter(volume_id, State::ControllerPublish);
            let node = self
                .node_id
                .as_deref()
                .expect("it is known where volumes are attached");
            self.client
                .controller_publish(&self.usage(volume_id), node)
                .await?
        } else {
            HashMap::new()
        };
        self.change(volume_id, |volume| {
            volume.state = State::NodeReady;
            volume.publish_context = context;
        });
        Ok(())
    }

    async fn controller_unpublish(&mut self, volume_id: &str) -> Result<(), Failure> {
        if self.can(controller::PUBLISH_UNPUBLISH_VOLUME) {
            self.enter(volume_id, State::ControllerUnpublish);
            let node = self
                .node_id
                .as_deref()
                .expect("it is known where volumes are attached");
            self.client.controller_unpublish(volume_id, node).await?;
        }
        self.change(volume_id, |volume| {
            volume.state = State::Created;
            volume.publish_context.clear();
        });
        Ok(())
    }

    async fn node_stage(&mut self, volume_id: &str) -> Result<(), Failure> {
        if self.stages() {
            fs::create_dir_all(self.staging(volume_id)).unwrap();
            self.enter(volume_id, State::NodeStage);
            self.client.stage(&self.usage(volume_id)).await?;
        }
        let boot_id = self.plan.boot_id.clone();
        self.change(volume_id, |volume| {
            volume.state = State::VolReady;
            volume.boot_id = Some(boot_id);
        });
        Ok(())
    }

    async fn node_unstage(&mut self, volume_id: &str) -> Result<(), Failure> {
        if self.stages() {
            self.enter(volume_id, State::NodeUnstage);
            self.staging_exists(volume_id)?;
            self.client.unstage(&self.usage(volume_id)).await?;
            // Mesos would detect this when it unstages the next time.
            self.staging_exists(volume_id)?;
        }
        if self.volume(volume_id).pre_provisioned {
            return self.forget(volume_id);
        }
        self.change(volume_id, |volume| {
            volume.state = State::NodeReady;
            volume.boot_id = None;
        });
        Ok(())
    }

    async fn node_publish(&mut self, volume_id: &str) -> Result<(), Failure> {
        let target = self.target(volume_id);
        fs::create_dir_all(match self.client.api {
            Api::V0 => &target,
            Api::V1 => target.parent().unwrap(),
        })
        .unwrap();
        self.enter(volume_id, State::NodePublish);
        if self.stages() {
            self.staging_exists(volume_id)?;
        }
        self.client.publish(&self.usage(volume_id)).await?;
        if !target.exists() {
            return failed(format!("Target path '{}' not created", target.display()));
        }
        self.change(volume_id, |volume| {
            volume.state = State::Published;
            volume.node_publish_required = true;
        });
        Ok(())
    }

    async fn node_unpublish(&mut self, volume_id: &str) -> Result<(), Failure> {
        self.enter(volume_id, State::NodeUnpublish);
        let target = self.target(volume_id);
        let exists = || {
            if target.exists() {
                Ok(())
            } else {
                failed(format!("Check failed: os::exists('{}')", target.display()))
            }
        };
        if self.client.api == Api::V0 {
            exists()?;
        }
        self.client.unpublish(&self.usage(volume_id)).await?;
        match self.client.api {
            // Mesos would detect this, and abort, when it unpublishes the next time.
            Api::V0 => exists()?,
            Api::V1 if target.exists() => {
                return failed(format!("Target path '{}' not removed", target.display()));
            }
            Api::V1 => {}
        }
        self.change(volume_id, |volume| volume.state = State::VolReady);
        Ok(())
    }

    /// Mesos assumes that a volume that was mounted in this boot is still mounted, and otherwise lets its tasks write into
    /// a directory of its own; this client detects that.
    fn still_published(&self, volume_id: &str) -> Result<(), Failure> {
        let target = self.target(volume_id);
        if Mounts::read().at(&target).is_empty() {
            return failed(format!("Target path '{}' not mounted any more", target.display()));
        }
        Ok(())
    }

    fn staging_exists(&self, volume_id: &str) -> Result<(), Failure> {
        let staging = self.staging(volume_id);
        if staging.exists() {
            Ok(())
        } else {
            failed(format!("Check failed: os::exists('{}')", staging.display()))
        }
    }

    /// Forgets a volume, and deletes its files.
    fn forget(&mut self, volume_id: &str) -> Result<(), Failure> {
        self.volumes.remove(volume_id);
        fs::remove_dir_all(self.state_file(volume_id).parent().unwrap()).unwrap();
        collect_garbage(&self.plan.mount_root.join(encode(volume_id)))
    }

    fn state(&self, volume_id: &str, what: &str) -> Result<State, Failure> {
        match self.volumes.get(volume_id) {
            Some(volume) => Ok(volume.state),
            None => failed(format!("Cannot {what} unknown volume '{volume_id}'")),
        }
    }

    /// Returns the state of a volume.
    pub(crate) fn volume(&self, volume_id: &str) -> &VolumeState {
        &self.volumes[volume_id]
    }

    /// Returns the volumes that Mesos keeps track of.
    pub(crate) fn tracked(&self) -> Vec<&str> {
        self.volumes.keys().map(String::as_str).collect()
    }

    /// Returns the settings of calls to the plugin.
    pub(crate) fn calls(&self) -> &Calls {
        &self.plan.calls
    }

    pub(crate) fn staging(&self, volume_id: &str) -> PathBuf {
        self.plan.mount_root.join(encode(volume_id)).join("staging")
    }

    pub(crate) fn target(&self, volume_id: &str) -> PathBuf {
        self.plan.mount_root.join(encode(volume_id)).join("target")
    }

    fn usage(&self, volume_id: &str) -> Usage {
        let volume = self.volume(volume_id);
        Usage {
            id: volume_id.to_owned(),
            capability: volume.capability.clone(),
            publish_context: volume.publish_context.clone(),
            context: volume.context.clone(),
            readonly: volume.readonly,
            staging: if self.stages() {
                self.staging(volume_id)
            } else {
                PathBuf::new()
            },
            target: self.target(volume_id),
        }
    }

    fn track(&mut self, volume_id: &str, state: VolumeState) {
        self.volumes.insert(volume_id.to_owned(), state);
        self.checkpoint(volume_id);
    }

    /// Stores the fact that a call is about to be made.
    fn enter(&mut self, volume_id: &str, state: State) {
        if self.volume(volume_id).state != state {
            self.change(volume_id, |volume| volume.state = state);
        }
    }

    fn change(&mut self, volume_id: &str, change: impl FnOnce(&mut VolumeState)) {
        change(self.volumes.get_mut(volume_id).expect("it is tracked"));
        self.checkpoint(volume_id);
    }

    fn checkpoint(&self, volume_id: &str) {
        self.volume(volume_id).checkpoint(&self.state_file(volume_id));
    }

    fn state_file(&self, volume_id: &str) -> PathBuf {
        let directory = self.plan.root.join("volumes").join(encode(volume_id));
        directory.join("volume.state")
    }
}

fn names_in(directory: &std::path::Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
