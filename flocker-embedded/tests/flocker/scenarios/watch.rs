//! Observing state, and comparing the changes with the recorded ones.
//!
//! Only the order of distinguishable states counts. Sometimes a dataset is missing from state for a moment between
//! two reports; whether a read observes that is chance, so the states around it are compared, and not the moment
//! itself. The same is true of nodes that appear or disappear in succession.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;

use super::{FACTOR, Scenario};
use crate::contract::observations;
use crate::support::Answer;

const ABSENT: &str = "absent";
const NONE: &str = "none";

/// How long a test waits for a condition. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(5);

/// What is observed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject {
    /// Where state shows a dataset: `absent`, `unmounted` or `node-N`.
    Dataset(Uuid),
    /// Which nodes are listed.
    Nodes,
    /// Which node has an era.
    Era(Uuid),
}

/// One recorded sequence of observations, repeated.
pub(super) struct Watch<'a> {
    scenario: &'a Scenario,
    case: &'a str,
    subject: Subject,
    recorded: Vec<String>,
    seen: Vec<String>,
}

impl<'a> Watch<'a> {
    /// Begins with what is observed before any change.
    pub(super) async fn begin(scenario: &'a Scenario, case: &'a str, subject: Subject) -> Self {
        let mut watch = Self::new(scenario, case, subject);
        let deadline = Instant::now() + PATIENCE;
        while watch.seen.is_empty() {
            assert!(
                Instant::now() < deadline,
                "{case}: nothing is observed before the deadline"
            );
            watch.observe().await;
        }
        watch
    }

    /// Begins at the first recorded observation: a change has been made already.
    pub(super) async fn begin_late(scenario: &'a Scenario, case: &'a str, subject: Subject) -> Self {
        let mut watch = Self::new(scenario, case, subject);
        let deadline = Instant::now() + PATIENCE;
        while scenario.see(subject).await != watch.recorded[0] {
            assert!(
                Instant::now() < deadline,
                "{case}: the first recorded observation has not appeared"
            );
            sleep(POLL).await;
        }
        watch.seen.push(watch.recorded[0].clone());
        watch
    }

    fn new(scenario: &'a Scenario, case: &'a str, subject: Subject) -> Self {
        let observations: Vec<_> = observations()
            .into_iter()
            .filter(|observation| observation.case == case)
            .map(|observation| observation.observes)
            .collect();
        assert!(!observations.is_empty(), "{case:?} is not in the recording");
        Self {
            scenario,
            case,
            subject,
            recorded: steady(&observations),
            seen: Vec::new(),
        }
    }

    /// Observes until everything recorded has been observed.
    pub(super) async fn end(&mut self) {
        let last = self.recorded.len();
        self.until(last).await;
    }

    /// Observes until a recorded observation that is not the last one.
    pub(super) async fn reach(&mut self, observation: &str) {
        let position = self.recorded.iter().position(|recorded| recorded == observation);
        let position = position.unwrap_or_else(|| panic!("{}: {observation} was not recorded", self.case));
        self.until(position + 1).await;
    }

    /// Observes for as long as the recording did, in seconds of a real Flocker, and asserts that nothing changes.
    pub(super) async fn hold(&mut self, seconds: u32) {
        let before = self.steady();
        let end = Instant::now() + Duration::from_secs(seconds.into()) / FACTOR;
        while Instant::now() < end {
            sleep(POLL).await;
            self.observe().await;
            let mut now = steady(&self.seen);
            if now.len() > before.len() && now.last().is_some_and(|last| last == ABSENT) {
                // This may be a momentary absence.
                now.pop();
            }
            assert_eq!(now, before, "{}: it has changed: {:?}", self.case, self.seen);
        }
    }

    async fn until(&mut self, length: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.steady() != self.recorded[..length] {
            assert!(
                Instant::now() < deadline,
                "{}: recorded {:?}, but observed only {:?}",
                self.case,
                &self.recorded[..length],
                self.seen
            );
            sleep(POLL).await;
            self.observe().await;
        }
    }

    /// Reads once, and compares all observations with the recording.
    async fn observe(&mut self) {
        let observation = self.scenario.see(self.subject).await;
        let begins_missing = self.seen.is_empty() && observation == ABSENT && self.recorded[0] != ABSENT;
        if begins_missing || self.seen.last() == Some(&observation) || self.is_on_the_way(&observation) {
            return;
        }
        self.seen.push(observation);
        assert!(
            self.recorded.starts_with(&self.steady()),
            "{}: recorded {:?}, observed {:?}",
            self.case,
            self.recorded,
            self.seen
        );
    }

    /// Returns whether some of the nodes that change between two recorded observations have changed and others not
    /// yet: no two agents report at the same time, but the recording did not read as often.
    fn is_on_the_way(&self, observation: &str) -> bool {
        let seen = self.steady();
        let (Subject::Nodes, Some(last), Some(next)) =
            (self.subject, seen.last(), self.recorded.get(seen.len()))
        else {
            return false;
        };
        let nodes = |list: &str| -> BTreeSet<String> {
            let nodes = list.split(' ').filter(|node| *node != NONE);
            nodes.map(ToOwned::to_owned).collect()
        };
        let (last, observation, next) = (nodes(last), nodes(observation), nodes(next));
        let (few, many) = if last.len() < next.len() {
            (last, next)
        } else {
            (next, last)
        };
        observation != few
            && observation != many
            && few.is_subset(&observation)
            && observation.is_subset(&many)
    }

    /// All observations, without a current absence that was not recorded: it may be momentary.
    fn steady(&self) -> Vec<String> {
        let mut seen = steady(&self.seen);
        if !self.recorded.starts_with(&seen) && seen.last().is_some_and(|last| last == ABSENT) {
            seen.pop();
        }
        seen
    }
}

/// Removes repetitions, and absences from which a dataset has returned.
fn steady(observations: &[String]) -> Vec<String> {
    let mut steady: Vec<String> = Vec::new();
    for (index, observation) in observations.iter().enumerate() {
        let flickers = observation == ABSENT && index > 0 && index + 1 < observations.len();
        if !flickers && steady.last() != Some(observation) {
            steady.push(observation.clone());
        }
    }
    steady
}

impl Scenario {
    pub(super) async fn see(&self, subject: Subject) -> String {
        match subject {
            Subject::Dataset(dataset) => {
                let list = self.get("/v1/state/datasets").await.json();
                let mut entries = list.as_array().unwrap().iter();
                match entries.find(|entry| entry["dataset_id"] == json!(dataset)) {
                    None => ABSENT.to_owned(),
                    Some(entry) => match entry.get("primary") {
                        None => "unmounted".to_owned(),
                        Some(primary) => self.name(primary),
                    },
                }
            }
            Subject::Nodes => {
                let list = self.get("/v1/state/nodes").await.json();
                let nodes = list.as_array().unwrap().iter();
                let mut nodes: Vec<_> = nodes.map(|node| self.name(&node["uuid"])).collect();
                nodes.sort();
                if nodes.is_empty() {
                    NONE.to_owned()
                } else {
                    nodes.join(" ")
                }
            }
            Subject::Era(era) => {
                let answer = self.get(&format!("/v1/state/nodes/by_era/{era}")).await;
                match answer.status {
                    404 => NONE.to_owned(),
                    _ => self.name(&answer.json()["uuid"]),
                }
            }
        }
    }

    /// Repeats a request until it is answered: a control service that is starting does not answer.
    async fn get(&self, path: &str) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let client = &self.cluster.client;
            match client.attempt(Method::GET, path, |request| request).await {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            sleep(POLL).await;
        }
    }

    fn name(&self, node: &Value) -> String {
        let mut nodes = self.cluster.flocker.nodes().iter();
        let info = nodes.find(|info| json!(info.uuid) == *node).unwrap();
        format!("node-{}", info.number)
    }
}

#[test]
fn a_momentary_absence_is_removed_but_neither_a_beginning_nor_an_end() {
    let steady = |observations: &[&str]| {
        let observations: Vec<_> = observations.iter().map(ToString::to_string).collect();
        steady(&observations)
    };
    assert_eq!(
        steady(&["absent", "unmounted", "node-1", "node-1"]),
        ["absent", "unmounted", "node-1"]
    );
    assert_eq!(
        steady(&["node-2", "unmounted", "absent", "unmounted"]),
        ["node-2", "unmounted"]
    );
    assert_eq!(steady(&["node-1", "absent"]), ["node-1", "absent"]);
}
