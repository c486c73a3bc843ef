//! All faults of one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::node_faults::{ControlFault, NodeFault};
use super::request_faults::{RequestFault, milliseconds};

/// The faults to inject. Start from the default with struct update syntax, so that a fault added later stays off.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultPlan {
    /// Faults of requests. The first rule that applies to a request decides.
    pub requests: Vec<RequestFault>,
    /// Faults of nodes, by their number, counted from 1.
    pub nodes: BTreeMap<usize, NodeFault>,
    /// Whether the control service is stopped: connections are closed and new ones refused.
    pub control_stopped: bool,
    /// Each increment restarts the control service: connections are closed, and nodes and state are empty until the
    /// agents report again.
    pub control_restarts: u32,
    /// How long the agents take to connect again after the control service has started: up to 30 s on a real cluster.
    #[serde(deserialize_with = "milliseconds")]
    pub reconnect_after: Duration,
    /// Whether the backend detects machines that are off, as those of AWS and `OpenStack` do: then a node that needs
    /// a dataset detaches it from such a machine. A stopped agent on a running machine keeps its datasets in any
    /// case.
    pub dead_nodes_known: bool,
    /// What is missing from state in every second answer.
    pub flicker: Flicker,
}

/// What every second answer to a request for the datasets in state leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Flicker {
    /// Nothing.
    #[default]
    Off,
    /// Datasets whose state differs from their configuration: new, moved or deleted ones in progress.
    Unsettled,
    /// All datasets.
    All,
}

impl FaultPlan {
    /// Returns the fault of a node, by its number.
    pub(crate) fn node(&self, number: usize) -> NodeFault {
        self.nodes.get(&number).cloned().unwrap_or_default()
    }

    pub(crate) fn control(&self) -> ControlFault {
        ControlFault {
            stopped: self.control_stopped,
            restarts: self.control_restarts,
        }
    }

    /// Returns the fault of a node, and how long its agent takes to connect again.
    pub(crate) fn of_node(&self, number: usize) -> (NodeFault, Duration) {
        (self.node(number), self.reconnect_after)
    }
}
