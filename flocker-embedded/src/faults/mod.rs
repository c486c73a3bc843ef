//! What goes wrong on purpose, so that clients can be tested against it.
//!
//! A [`FaultPlan`] says what is wrong at this moment; it can be replaced while Flocker runs. Nothing is wrong by
//! default, and nothing here costs anything then.

mod check;
mod control;
mod file;
mod nodes;
mod requests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

pub use control::Faults;
pub use file::PlanError;
pub(crate) use nodes::ControlFault;
pub use nodes::{AgentState, MachineState, NodeFault};
pub(crate) use requests::{Lost, inject};

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

/// A rule for requests.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestFault {
    /// What the rule is called in logs and by [`Faults::until_met`]. A rule whose name and content stay the same keeps
    /// its counts when the plan is replaced.
    pub name: String,
    /// The HTTP method it applies to; every one unless given.
    #[serde(default)]
    pub method: Option<String>,
    /// The template of the route it applies to, such as `/v1/configuration/datasets/{dataset_id}`; every one unless
    /// given.
    #[serde(default)]
    pub route: Option<String>,
    /// Text that the path or the body has to contain.
    #[serde(default)]
    pub containing: Option<String>,
    /// How many requests pass before the rule begins to apply.
    #[serde(default)]
    pub after: u64,
    /// How many requests it applies to; all unless given.
    #[serde(default)]
    pub times: Option<u64>,
    /// What happens to them.
    pub effect: Effect,
}

impl RequestFault {
    /// Returns a rule for every request.
    pub fn new(name: impl Into<String>, effect: Effect) -> Self {
        Self {
            name: name.into(),
            method: None,
            route: None,
            containing: None,
            after: 0,
            times: None,
            effect,
        }
    }

    /// Restricts the rule to a method and the template of a route.
    #[must_use]
    pub fn on(mut self, method: &str, route: &str) -> Self {
        self.method = Some(method.to_owned());
        self.route = Some(route.to_owned());
        self
    }

    /// Restricts the rule to the first request that it would apply to.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.times = Some(1);
        self
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// It is answered this much later.
    Delay(#[serde(deserialize_with = "milliseconds")] Duration),
    /// It is not carried out but answered like this.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The body, sent as JSON whatever it is.
        body: String,
    },
    /// It is not carried out, and the connection is closed without an answer.
    LoseRequest,
    /// It is carried out, and the connection is closed without an answer.
    LoseReply,
    /// It is carried out and answered only when the rule has gone.
    HoldRequest,
    /// It is carried out, and answered only when the rule has gone.
    HoldReply,
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}
