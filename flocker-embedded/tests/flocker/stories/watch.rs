//! Watching state go by, and comparing it with what the recording saw go by.
//!
//! Only the order of what can be told apart counts. Now and then a dataset is missing from state for a moment between
//! two reports; that is seen or not as chance has it, so what surrounds it is compared, and not the moment itself.
//! The same is true of nodes that come or go one after the other.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;

use super::{FACTOR, Story};
use crate::contract::sights;
use crate::support::Answer;

const ABSENT: &str = "absent";
const NONE: &str = "none";

/// How long anything may take before a test gives up. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(5);

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject {
    /// Where state shows a dataset: `absent`, `unmounted` or `node-N`.
    Dataset(Uuid),
    /// Which nodes are listed.
    Nodes,
    /// Which node has an era.
    Era(Uuid),
}

/// One watch of the recording, gone through again.
pub(super) struct Watch<'a> {
    story: &'a Story,
    case: &'a str,
    subject: Subject,
    recorded: Vec<String>,
    seen: Vec<String>,
}

impl<'a> Watch<'a> {
    /// Begins with what is seen before anything is done.
    pub(super) async fn begin(story: &'a Story, case: &'a str, subject: Subject) -> Self {
        let mut watch = Self::new(story, case, subject);
        let deadline = Instant::now() + PATIENCE;
        while watch.seen.is_empty() {
            assert!(
                Instant::now() < deadline,
                "{case}: there is nothing to begin with"
            );
            watch.look().await;
        }
        watch
    }

    /// Begins when the first sight comes that was recorded: something has been done already.
    pub(super) async fn begin_late(story: &'a Story, case: &'a str, subject: Subject) -> Self {
        let mut watch = Self::new(story, case, subject);
        let deadline = Instant::now() + PATIENCE;
        while story.see(subject).await != watch.recorded[0] {
            assert!(Instant::now() < deadline, "{case}: it does not even begin");
            sleep(POLL).await;
        }
        watch.seen.push(watch.recorded[0].clone());
        watch
    }

    fn new(story: &'a Story, case: &'a str, subject: Subject) -> Self {
        let sights: Vec<_> = sights()
            .into_iter()
            .filter(|sight| sight.case == case)
            .map(|sight| sight.sees)
            .collect();
        assert!(!sights.is_empty(), "{case:?} is not in the recording");
        Self {
            story,
            case,
            subject,
            recorded: steady(&sights),
            seen: Vec::new(),
        }
    }

    /// Watches until all that was recorded has been seen.
    pub(super) async fn end(&mut self) {
        let last = self.recorded.len();
        self.until(last).await;
    }

    /// Watches until a recorded sight comes that is not the last one.
    pub(super) async fn reach(&mut self, sight: &str) {
        let position = self.recorded.iter().position(|recorded| recorded == sight);
        let position = position.unwrap_or_else(|| panic!("{}: {sight} was not recorded", self.case));
        self.until(position + 1).await;
    }

    /// Watches for as long as the recording did, given in seconds of a real Flocker, and sees no change.
    pub(super) async fn hold(&mut self, seconds: u32) {
        let before = self.steady();
        let end = Instant::now() + Duration::from_secs(seconds.into()) / FACTOR;
        while Instant::now() < end {
            sleep(POLL).await;
            self.look().await;
            let mut now = steady(&self.seen);
            if now.len() > before.len() && now.last().is_some_and(|last| last == ABSENT) {
                // For a moment, as far as is known.
                now.pop();
            }
            assert_eq!(now, before, "{}: it did not stay so: {:?}", self.case, self.seen);
        }
    }

    async fn until(&mut self, length: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.steady() != self.recorded[..length] {
            assert!(
                Instant::now() < deadline,
                "{}: recorded {:?}, but seen only {:?}",
                self.case,
                &self.recorded[..length],
                self.seen
            );
            sleep(POLL).await;
            self.look().await;
        }
    }

    /// Takes one look, and compares all that has been seen with the recording.
    async fn look(&mut self) {
        let sight = self.story.see(self.subject).await;
        let begins_missing = self.seen.is_empty() && sight == ABSENT && self.recorded[0] != ABSENT;
        if begins_missing || self.seen.last() == Some(&sight) || self.is_on_the_way(&sight) {
            return;
        }
        self.seen.push(sight);
        assert!(
            self.recorded.starts_with(&self.steady()),
            "{}: recorded {:?}, seen {:?}",
            self.case,
            self.recorded,
            self.seen
        );
    }

    /// Tells whether some of the nodes that come or go between two recorded sights have done so and others not yet: no
    /// two agents report at the same time, but the recording did not look so often.
    fn is_on_the_way(&self, sight: &str) -> bool {
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
        let (last, sight, next) = (nodes(last), nodes(sight), nodes(next));
        let (few, many) = if last.len() < next.len() {
            (last, next)
        } else {
            (next, last)
        };
        sight != few && sight != many && few.is_subset(&sight) && sight.is_subset(&many)
    }

    /// What has been seen, without an absence of this moment that was not recorded: it may be over soon.
    fn steady(&self) -> Vec<String> {
        let mut seen = steady(&self.seen);
        if !self.recorded.starts_with(&seen) && seen.last().is_some_and(|last| last == ABSENT) {
            seen.pop();
        }
        seen
    }
}

/// Leaves away repetitions, and absences from which a dataset has come back.
fn steady(sights: &[String]) -> Vec<String> {
    let mut steady: Vec<String> = Vec::new();
    for (index, sight) in sights.iter().enumerate() {
        let flickers = sight == ABSENT && index > 0 && index + 1 < sights.len();
        if !flickers && steady.last() != Some(sight) {
            steady.push(sight.clone());
        }
    }
    steady
}

impl Story {
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

    /// Asks until there is an answer: a control service that is just starting gives none.
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
fn a_moment_of_absence_is_left_away_but_neither_a_beginning_nor_an_end() {
    let steady = |sights: &[&str]| {
        let sights: Vec<_> = sights.iter().map(ToString::to_string).collect();
        steady(&sights)
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
