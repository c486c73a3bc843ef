//! Faults of requests: a rule, and its effect.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A rule for requests.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestFault {
    /// The name of the rule in logs and for [`Faults::until_met`](super::Faults::until_met). A rule whose name and
    /// content stay the same keeps its counts when the plan is replaced.
    pub name: String,
    /// The HTTP method it applies to; all methods if absent.
    #[serde(default)]
    pub method: Option<String>,
    /// The template of the route it applies to, such as `/v1/configuration/datasets/{dataset_id}`; all routes if
    /// absent.
    #[serde(default)]
    pub route: Option<String>,
    /// Text that the path or the body must contain.
    #[serde(default)]
    pub containing: Option<String>,
    /// The number of matching requests that pass before the rule begins to apply.
    #[serde(default)]
    pub after: u64,
    /// The number of requests it applies to; unlimited if absent.
    #[serde(default)]
    pub times: Option<u64>,
    /// The effect on these requests.
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

    /// Restricts the rule to the first matching request.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.times = Some(1);
        self
    }
}

/// The effect of a fault on a request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Effect {
    /// The request is delayed by this time.
    Delay(#[serde(deserialize_with = "milliseconds")] Duration),
    /// The request is not carried out, but answered like this.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The body, sent with the content type of JSON and not verified.
        body: String,
    },
    /// The request is carried out, and these elements are added to the list in its answer: any text of JSON, not verified.
    AddToList(Vec<String>),
    /// The request is not carried out, and the connection is closed without an answer.
    LoseRequest,
    /// The request is carried out, and the connection is closed without an answer.
    LoseReply,
    /// The request is neither carried out nor answered before the rule has been removed.
    HoldRequest,
    /// The request is carried out at once, but answered only after the rule has been removed.
    HoldReply,
}

pub(super) fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}
