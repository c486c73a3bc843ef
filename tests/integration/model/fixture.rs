//! The system under test: a Flocker, and on each of its nodes the program itself.

use host_fs::mount::testing::unmount;
use std::collections::HashMap;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::{
    CapacityRange, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, CreateVolumeRequest,
    DeleteVolumeRequest, ListVolumesRequest,
};
use flocker_client::Client;
use flocker_csi::volume::{NODE_CONTEXT_KEY, Namespace, VolumeName};
use flocker_embedded::Options;
use flocker_embedded::faults::{AgentState, Flicker, MachineState};
use tonic::{Code, Status};
use uuid::Uuid;

use super::calls::{Access, Action, Flow, Kind, NODES};
use super::scenarios::Answer;
use crate::support::csi::{Csi, Usage, capability, within};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::Mounts;
use crate::support::process::Process;

/// How long Flocker lists a silent node.
const EXPIRY: Duration = Duration::from_millis(500);
/// A node counts as dead soon after that. It is long enough for a node that reports to Flocker again after a restart.
const TAKING_OVER: [&str; 2] = ["--takeover=node-gone", "--takeover-grace=2s"];

/// The driver's default name.
const NAMESPACE: &str = "flocker.csi.clusterhq.com";

impl Kind {
    pub(super) fn size(self) -> u64 {
        match self {
            Self::Small | Self::Gold => 64 << 20,
            Self::Large => 72 << 20,
        }
    }

    pub(super) fn profile(self) -> Option<&'static str> {
        (self == Self::Gold).then_some("gold")
    }
}

/// A Flocker of [`NODES`] nodes with a plugin on each, except where it was killed.
pub(super) struct Fixture {
    /// Declared first, so that they end before the things that they use.
    plugins: [Mutex<Option<Process>>; NODES],
    pub(super) machines: [Machine; NODES],
    pub(super) client: Client,
    pub(super) flocker: Flocker,
}

/// Returns the dataset id of a volume in one of its generations.
pub(super) fn dataset_id(name: &str, generation: usize) -> Uuid {
    let name = VolumeName::parse(name).unwrap();
    Namespace::new(NAMESPACE).dataset_id(&name, generation.try_into().unwrap())
}

impl Fixture {
    pub(super) async fn start() -> Self {
        Self::start_on(|_| {}).await
    }

    /// As [`Self::start`], on machines that `prepare` has prepared.
    pub(super) async fn start_on(prepare: impl Fn(&Machine)) -> Self {
        let flocker = Flocker::with(|options| Options {
            nodes: NODES,
            node_expiry: Some(EXPIRY),
            ..options
        })
        .await;
        let machines = std::array::from_fn(|node| Machine::new(&flocker, node + 1));
        machines.iter().for_each(prepare);
        let client = flocker.client().await;
        let fixture = Self {
            plugins: std::array::from_fn(|_| Mutex::default()),
            machines,
            client,
            flocker,
        };
        for node in 0..NODES {
            fixture.start_plugin(node).await;
        }
        fixture
    }

    /// Starts the plugin of a node unless it runs.
    pub(super) async fn start_plugin(&self, node: usize) {
        if self.plugin(node).is_none() {
            let started = self.machines[node].process(&TAKING_OVER).await;
            *self.plugin(node) = Some(started);
        }
    }

    /// Ends the plugin of a node as a crash would.
    pub(super) async fn kill_plugin(&self, node: usize) {
        let plugin = self.plugin(node).take();
        if let Some(plugin) = plugin {
            plugin.kill().await;
        }
    }

    /// Cuts the power of a node's machine: its plugin, its mounts and its device nodes no longer exist, and volumes were
    /// staged in another boot. `known`: the backend knows it.
    pub(super) async fn cut_power(&self, node: usize, known: bool) {
        self.kill_plugin(node).await;
        let machine = &self.machines[node];
        for mount in Mounts::read().below(&machine.path("")).iter().rev() {
            unmount(&mount.point);
        }
        for device in machine.devices() {
            fs::remove_file(device).unwrap();
        }
        for record in machine.records() {
            let mut document: serde_json::Value =
                serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
            document["record"]["boot_id"] = Uuid::new_v4().to_string().into();
            fs::write(&record, document.to_string()).unwrap();
        }
        self.flocker.embedded().faults().change(|plan| {
            plan.dead_nodes_known = known;
            plan.nodes.entry(node + 1).or_default().machine = MachineState::Off;
        });
    }

    /// Ends the agent of a node.
    pub(super) fn kill_agent(&self, node: usize) {
        let faults = self.flocker.embedded().faults();
        faults.change(|plan| plan.nodes.entry(node + 1).or_default().agent = AgentState::Stopped);
    }

    /// Starts every process that has ended on a node.
    pub(super) async fn start_node(&self, node: usize) {
        self.flocker.embedded().faults().change(|plan| {
            plan.nodes.remove(&(node + 1));
        });
        self.start_plugin(node).await;
    }

    /// Restarts the control service, and returns when it lists every node whose agent runs.
    pub(super) async fn restart_control(&self) {
        let faults = self.flocker.embedded().faults();
        faults.change(|plan| plan.control_restarts += 1);
        faults.until_in_force().await;
        let silent = self.silent();
        let expected: Vec<_> = self
            .machines
            .iter()
            .zip(silent)
            .filter(|(_, silent)| !silent)
            .collect();
        eventually("the agents report again", async || {
            let listed = self.client.list_nodes().await.ok()?;
            let is_listed = |node: Uuid| listed.iter().any(|listed| listed.uuid == node);
            expected
                .iter()
                .all(|(machine, _)| is_listed(machine.node()))
                .then_some(())
        })
        .await;
    }

    /// Makes state leave out a dataset, or none.
    pub(super) fn flicker(&self, flicker: Flicker) {
        self.flocker
            .embedded()
            .faults()
            .change(|plan| plan.flicker = flicker);
    }

    /// Returns which nodes have no running agent.
    pub(super) fn silent(&self) -> [bool; NODES] {
        let plan = self.flocker.embedded().faults().plan();
        std::array::from_fn(|node| plan.nodes.contains_key(&(node + 1)))
    }

    /// Whether a component does not run that calls may wait for.
    pub(super) fn is_crippled(&self) -> bool {
        self.silent().contains(&true)
    }

    /// Returns the connection to a plugin, if it runs.
    pub(super) fn csi(&self, node: usize) -> Option<Csi> {
        self.plugin(node).as_ref().map(|plugin| plugin.csi.clone())
    }

    /// Returns the process id of a plugin, if it runs.
    pub(super) fn process(&self, node: usize) -> Option<u32> {
        self.plugin(node).as_ref().map(Process::id)
    }

    /// Returns which nodes have no plugin.
    pub(super) fn without_plugin(&self) -> [bool; NODES] {
        std::array::from_fn(|node| self.plugin(node).is_none())
    }

    fn plugin(&self, node: usize) -> MutexGuard<'_, Option<Process>> {
        self.plugins[node].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of a node, from 0.
    pub(super) fn number_of(&self, node: Uuid) -> Option<usize> {
        self.machines.iter().position(|machine| machine.node() == node)
    }

    /// Returns the paths of the dataset on the node, with one of its targets.
    pub(super) fn usage(&self, node: usize, dataset: Uuid, target: usize) -> Usage {
        let usage = self.machines[node].usage(&dataset.to_string(), dataset, &HashMap::new());
        Usage {
            target: usage.target.with_file_name(format!("{dataset}-{target}")),
            ..usage
        }
    }
}

/// A call that can be repeated.
#[derive(Clone)]
pub(super) struct Request {
    csi: Csi,
    action: Action,
    name: String,
    dataset: Uuid,
    nodes: [Uuid; NODES],
    /// The paths of a call to a node.
    usage: Option<Usage>,
}

impl Fixture {
    /// Prepares a call through a connection.
    pub(super) fn request(&self, csi: Csi, action: Action, name: &str, generation: usize) -> Request {
        let dataset = dataset_id(name, generation);
        let on = |node, target| Some(self.usage(node, dataset, target));
        let usage = match action {
            Action::Create { .. } | Action::Delete { .. } | Action::Attach { .. } | Action::Detach { .. } => {
                None
            }
            Action::Stage { node, .. } | Action::Unstage { node } => on(node, 0),
            Action::Publish { node, target, .. } | Action::Unpublish { node, target } => on(node, target),
        };
        Request {
            csi,
            action,
            name: name.to_owned(),
            dataset,
            nodes: std::array::from_fn(|node| self.machines[node].node()),
            usage,
        }
    }
}

impl Request {
    /// Makes the call with this deadline.
    pub(super) async fn send(&self, timeout: Duration) -> (Answer, String) {
        let answer = self.try_send(timeout).await;
        match answer {
            Ok(None) => (Answer::Done, String::new()),
            Ok(Some(made)) => {
                let generation = (0..64).find(|generation| dataset_id(&self.name, *generation) == made);
                let generation = generation.expect("the id of a volume is derived from its name");
                (Answer::Made(generation), String::new())
            }
            Err(status) => {
                let answer = match status.code() {
                    // tonic returns the last of them for a broken connection.
                    Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                        Answer::Open
                    }
                    code => Answer::Refused(code),
                };
                (answer, format!("{:?}: {}", status.code(), status.message()))
            }
        }
    }

    async fn try_send(&self, timeout: Duration) -> Result<Option<Uuid>, Status> {
        let (mut controller, mut node_service) = (self.csi.controller(), self.csi.node());
        let volume_id = self.dataset.to_string();
        let usage = self.usage.as_ref();
        let usage = || usage.expect("a call to a node has paths");
        let done = match self.action {
            Action::Create { kind, .. } => {
                let created = controller
                    .create_volume(within(timeout, self.creation(kind)))
                    .await?;
                let made = created.into_inner().volume.unwrap();
                return Ok(Some(made.volume_id.parse().unwrap()));
            }
            Action::Delete { .. } => {
                let request = DeleteVolumeRequest {
                    volume_id,
                    ..Default::default()
                };
                controller.delete_volume(within(timeout, request)).await.map(drop)
            }
            Action::Attach { node } => {
                let request = ControllerPublishVolumeRequest {
                    volume_id,
                    node_id: self.nodes[node].to_string(),
                    volume_capability: Some(capability(Mode::SingleNodeMultiWriter)),
                    ..Default::default()
                };
                let attached = controller
                    .controller_publish_volume(within(timeout, request))
                    .await;
                attached.map(drop)
            }
            Action::Detach { node } => {
                let request = ControllerUnpublishVolumeRequest {
                    volume_id,
                    node_id: node.map(|node| self.nodes[node].to_string()).unwrap_or_default(),
                    ..Default::default()
                };
                let detached = controller
                    .controller_unpublish_volume(within(timeout, request))
                    .await;
                detached.map(drop)
            }
            Action::Stage { node, flow } => {
                let mut request = usage().to_stage();
                if flow == Flow::Controller {
                    let node = self.nodes[node].to_string();
                    request.publish_context.insert(NODE_CONTEXT_KEY.to_owned(), node);
                }
                node_service
                    .node_stage_volume(within(timeout, request))
                    .await
                    .map(drop)
            }
            Action::Unstage { .. } => {
                let request = within(timeout, usage().to_unstage());
                node_service.node_unstage_volume(request).await.map(drop)
            }
            Action::Publish { access, .. } => {
                let mut request = usage().to_publish();
                request.readonly = access == Access::ReadOnly;
                request.volume_capability = Some(capability(Mode::SingleNodeMultiWriter));
                node_service
                    .node_publish_volume(within(timeout, request))
                    .await
                    .map(drop)
            }
            Action::Unpublish { .. } => {
                let request = within(timeout, usage().to_unpublish());
                node_service.node_unpublish_volume(request).await.map(drop)
            }
        };
        done.map(|()| None)
    }

    fn creation(&self, kind: Kind) -> CreateVolumeRequest {
        let size = i64::try_from(kind.size()).unwrap();
        let profile = kind
            .profile()
            .map(|profile| ("profile".to_owned(), profile.to_owned()));
        CreateVolumeRequest {
            name: self.name.clone(),
            capacity_range: Some(CapacityRange {
                required_bytes: size,
                limit_bytes: size,
            }),
            volume_capabilities: vec![capability(Mode::SingleNodeMultiWriter)],
            parameters: profile.into_iter().collect(),
            ..Default::default()
        }
    }
}

/// A volume in a list, with the nodes to which it is attached according to the list.
pub(super) type Listed = (Uuid, Vec<String>);

/// Lists all volumes, a few at a time.
pub(super) async fn list(csi: &Csi, timeout: Duration) -> Result<Vec<Listed>, Status> {
    let mut listed = Vec::new();
    let mut starting_token = String::new();
    loop {
        let request = ListVolumesRequest {
            max_entries: 3,
            starting_token,
        };
        let page = csi
            .controller()
            .list_volumes(within(timeout, request))
            .await?
            .into_inner();
        listed.extend(page.entries.into_iter().map(|entry| {
            let volume = entry.volume.unwrap().volume_id.parse().unwrap();
            (volume, entry.status.unwrap().published_node_ids)
        }));
        starting_token = page.next_token;
        if starting_token.is_empty() {
            return Ok(listed);
        }
    }
}
