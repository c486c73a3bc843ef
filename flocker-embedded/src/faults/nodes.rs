//! What is wrong with nodes, and with the control service itself.

use serde::Deserialize;
use uuid::Uuid;

/// What is wrong with one node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeFault {
    /// Whether its agent runs.
    pub agent: AgentState,
    /// Whether its machine runs.
    pub machine: MachineState,
    /// Counting it up reboots a machine that is on: a power cut, and then it starts again.
    pub reboots: u32,
    /// The era (boot id) that the node has from its next start on; a random one unless given.
    pub era: Option<Uuid>,
}

impl NodeFault {
    pub(crate) fn agent_runs(&self) -> bool {
        self.agent == AgentState::Running && self.machine == MachineState::On
    }
}

/// Whether the agent of a node runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// It does.
    #[default]
    Running,
    /// It alone is dead: what is mounted stays mounted, and goes on to be used. The node is listed until it expires,
    /// and then is gone from state with its datasets. An agent that runs again reports at once.
    Stopped,
}

/// Whether the machine of a node runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// It does.
    #[default]
    On,
    /// It had a power cut: its agent is dead, the mounts that its agent made are gone, its loop devices are free. What
    /// was attached still belongs to it. What others have mounted from a device of its stays, as there is one kernel
    /// for all nodes, and then no other node gets that dataset. Switching it on again starts it with a new era, and
    /// with new loop devices for what still belongs to it.
    Off,
}

/// What is wrong with the control service.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ControlFault {
    pub(crate) stopped: bool,
    pub(crate) restarts: u32,
}
