//! Faults of nodes, and of the control service itself.

use serde::Deserialize;
use uuid::Uuid;

/// The fault of one node. Start from the default with struct update syntax, so that a fault added later stays off.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeFault {
    /// Whether its agent runs.
    pub agent: AgentState,
    /// Whether its machine runs.
    pub machine: MachineState,
    /// Each increment reboots a running machine: a power cut, and then a start.
    pub reboots: u32,
    /// The era (boot id) of the node from its next start on; random if absent.
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
    /// It runs.
    #[default]
    Running,
    /// Only the agent is stopped: what is mounted stays mounted and usable. The node is listed until it expires, then
    /// it disappears from state with its datasets. An agent that is started again reports at once.
    Stopped,
}

/// Whether the machine of a node runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// It runs.
    #[default]
    On,
    /// It had a power cut: its agent has ended, the mounts of its agent no longer exist, its loop devices are free.
    /// What was attached still belongs to it. Mounts that other processes made of its devices stay, as all nodes
    /// share one kernel, and until they end no other node gets those datasets. Switching the machine on starts it
    /// with a new era, and with new loop devices for what still belongs to it.
    Off,
}

/// The fault of the control service.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ControlFault {
    pub(crate) stopped: bool,
    pub(crate) restarts: u32,
}
