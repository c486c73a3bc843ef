//! What goes wrong with requests: a rule, and its effect.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

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

pub(super) fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}
