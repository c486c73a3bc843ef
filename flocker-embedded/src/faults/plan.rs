//! Everything that is wrong at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::nodes::{ControlFault, NodeFault};
use super::rules::{RequestFault, milliseconds};

/// What is wrong.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultPlan {
    /// What is wrong with requests. The first rule that applies to a request decides.
    pub requests: Vec<RequestFault>,
    /// What is wrong with nodes, by their number, counted from 1.
    pub nodes: BTreeMap<usize, NodeFault>,
    /// Whether the control service is dead: connections are closed and new ones refused.
    pub control_stopped: bool,
    /// Counting it up restarts the control service: connections are closed, and nodes and state are empty until the
    /// agents report again.
    pub control_restarts: u32,
    /// How long the agents take to connect again after the control service has started: up to 30 s on a real cluster.
    #[serde(deserialize_with = "milliseconds")]
    pub reconnect_after: Duration,
    /// Whether the backend knows machines that are off, as those of AWS and `OpenStack` do: then a node that wants a
    /// dataset detaches it from one. An agent that is dead on a machine that is on keeps its datasets in any case.
    pub dead_nodes_known: bool,
    /// What vanishes from state for a moment again and again.
    pub flicker: Flicker,
}

/// What every second answer to a client that asks for the datasets in state leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flicker {
    /// Nothing.
    #[default]
    Off,
    /// Datasets that are not as they are configured: new, moved or deleted ones on their way.
    Unsettled,
    /// All datasets.
    All,
}

impl FaultPlan {
    /// Returns what is wrong with a node, by its number.
    pub(crate) fn node(&self, number: usize) -> NodeFault {
        self.nodes.get(&number).cloned().unwrap_or_default()
    }

    pub(crate) fn control(&self) -> ControlFault {
        ControlFault {
            stopped: self.control_stopped,
            restarts: self.control_restarts,
        }
    }

    /// Returns what a node has to know to be as it should.
    pub(crate) fn of_node(&self, number: usize) -> (NodeFault, Duration) {
        (self.node(number), self.reconnect_after)
    }
}
