//! The state of each volume that Mesos stores.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::types::Capability;

/// How far a volume is on its way to a task and back. The state of a step is on the disk before its call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    Created,
    ControllerPublish,
    ControllerUnpublish,
    NodeReady,
    NodeStage,
    NodeUnstage,
    VolReady,
    NodePublish,
    NodeUnpublish,
    Published,
}

impl State {
    /// Whether its part about the node ends with a reboot.
    pub(crate) fn ends_with_the_boot(self) -> bool {
        matches!(
            self,
            Self::VolReady | Self::Published | Self::NodeUnstage | Self::NodePublish | Self::NodeUnpublish
        )
    }
}

/// A volume that Mesos keeps track of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeState {
    pub(crate) state: State,
    pub(crate) capability: Capability,
    pub(crate) parameters: HashMap<String, String>,
    pub(crate) context: HashMap<String, String>,
    pub(crate) publish_context: HashMap<String, String>,
    /// The boot in which it was staged.
    pub(crate) boot_id: Option<String>,
    /// Whether it must be published whenever Mesos runs, so that it can be cleaned up.
    pub(crate) node_publish_required: bool,
    /// Whether Mesos did not create it, and forgets it after its last use.
    pub(crate) pre_provisioned: bool,
    pub(crate) readonly: bool,
}

impl VolumeState {
    /// Returns the state of a volume that was just made or adopted.
    pub(crate) fn created(
        capability: Capability,
        parameters: HashMap<String, String>,
        context: HashMap<String, String>,
    ) -> Self {
        Self {
            state: State::Created,
            capability,
            parameters,
            context,
            publish_context: HashMap::new(),
            boot_id: None,
            node_publish_required: false,
            pre_provisioned: false,
            readonly: false,
        }
    }

    /// Returns the state of a volume that another client created and a task names.
    pub(crate) fn pre_provisioned(
        capability: Capability,
        context: HashMap<String, String>,
        readonly: bool,
    ) -> Self {
        Self {
            state: State::NodeReady,
            pre_provisioned: true,
            readonly,
            ..Self::created(capability, HashMap::new(), context)
        }
    }

    /// Stores it so that it survives a crash.
    pub(crate) fn checkpoint(&self, file: &Path) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let temporary = file.with_extension("temporary");
        let mut written = File::create(&temporary).unwrap();
        written.write_all(&serde_json::to_vec(self).unwrap()).unwrap();
        written.sync_all().unwrap();
        fs::rename(&temporary, file).unwrap();
    }

    pub(crate) fn read(file: &Path) -> Self {
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }
}
