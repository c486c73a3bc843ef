//! When a node counts as gone.
//!
//! Absence is never proof: a control service that has just started lists no node, and one that does not answer lists none
//! either. A node counts as gone only after an unbroken run of answers, each listing some node and none listing this one,
//! that spans the grace period without a gap longer than [`LONGEST_GAP`].

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// The longest time between two answers of a run.
const LONGEST_GAP: Duration = Duration::from_secs(10);
/// A node that was not queried for this long is no longer watched.
const FORGET: Duration = Duration::from_secs(600);
/// How often the nodes are listed while one of them is missing.
pub(super) const WATCH_EVERY: Duration = Duration::from_secs(5);

/// What is known about a node that was not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    /// It is not known to be missing, or not yet.
    Unknown,
    /// It has been missing since then, which is not long enough.
    Missing {
        /// The first answer of the run that did not list it.
        since: Instant,
    },
    /// It has been missing for the whole grace period.
    Gone,
}

#[derive(Debug)]
struct Watched {
    missing_since: Option<Instant>,
    queried: Instant,
}

/// The nodes that are missing and were queried.
#[derive(Debug)]
pub(super) struct Absences {
    grace: Duration,
    last_answer: Option<Instant>,
    watched: HashMap<Uuid, Watched>,
}

impl Absences {
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            last_answer: None,
            watched: HashMap::new(),
        }
    }

    /// Returns what is known about `node` and keeps it watched.
    pub(super) fn query(&mut self, node: Uuid, now: Instant) -> Absence {
        let watched = self.watched.entry(node).or_insert(Watched {
            missing_since: None,
            queried: now,
        });
        watched.queried = now;
        match (watched.missing_since, self.last_answer) {
            (Some(since), Some(answer))
                if answer.duration_since(since) >= self.grace && now - answer <= LONGEST_GAP =>
            {
                Absence::Gone
            }
            (Some(since), _) => Absence::Missing { since },
            (None, _) => Absence::Unknown,
        }
    }

    /// Records the nodes listed by a read that started at `began`. An `incomplete` list has elements whose ids cannot be
    /// read: any node that it does not list may be one of them, so it proves of no node that it is missing.
    pub(super) fn listed(&mut self, began: Instant, nodes: &[Uuid], incomplete: bool) {
        if nodes.is_empty() || incomplete {
            self.watched.retain(|node, _| !nodes.contains(node));
            return self.interrupted();
        }
        if self
            .last_answer
            .is_some_and(|answer| began.saturating_duration_since(answer) > LONGEST_GAP)
        {
            self.interrupted();
        }
        self.last_answer = Some(self.last_answer.map_or(began, |answer| answer.max(began)));
        self.watched
            .retain(|node, watched| !nodes.contains(node) && began - watched.queried <= FORGET);
        for watched in self.watched.values_mut() {
            watched.missing_since.get_or_insert(began);
        }
    }

    /// Records a failed read: every run starts again.
    pub(super) fn interrupted(&mut self) {
        self.last_answer = None;
        for watched in self.watched.values_mut() {
            watched.missing_since = None;
        }
    }

    /// Whether any node is still watched.
    pub(super) fn any(&mut self, now: Instant) -> bool {
        self.watched.retain(|_, watched| now - watched.queried <= FORGET);
        !self.watched.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(180);

    struct Scenario {
        absences: Absences,
        start: Instant,
        node: Uuid,
        other: Uuid,
    }

    impl Scenario {
        fn new() -> Self {
            let (node, other) = (Uuid::new_v4(), Uuid::new_v4());
            let mut scenario = Self {
                absences: Absences::new(GRACE),
                start: Instant::now(),
                node,
                other,
            };
            assert_eq!(scenario.query(0), Absence::Unknown);
            scenario
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn query(&mut self, second: u64) -> Absence {
            self.absences.query(self.node, self.at(second))
        }

        fn answers(&mut self, seconds: impl Iterator<Item = u64>) {
            for second in seconds {
                self.absences.listed(self.at(second), &[self.other], false);
            }
        }
    }

    #[test]
    fn a_node_counts_as_gone_after_an_unbroken_run_over_the_grace_period() {
        let mut scenario = Scenario::new();
        scenario.answers((0..=175).step_by(5));
        assert!(matches!(scenario.query(176), Absence::Missing { .. }));
        scenario.answers((180..=180).step_by(5));
        assert_eq!(scenario.query(181), Absence::Gone);
    }

    #[test]
    fn an_empty_or_incomplete_list_a_failure_or_a_gap_starts_the_run_again() {
        for breaker in 0..4 {
            let mut scenario = Scenario::new();
            scenario.answers((0..=90).step_by(5));
            match breaker {
                0 => scenario.absences.listed(scenario.at(95), &[], false),
                3 => scenario.absences.listed(scenario.at(95), &[scenario.other], true),
                1 => scenario.absences.interrupted(),
                _ => {} // no answer between 90 and 101
            }
            scenario.answers((101..=271).step_by(5));
            assert!(!matches!(scenario.query(272), Absence::Gone), "breaker {breaker}");
            scenario.answers((276..=286).step_by(5));
            assert_eq!(scenario.query(287), Absence::Gone, "breaker {breaker}");
        }
    }

    #[test]
    fn a_node_that_is_listed_again_is_no_longer_watched() {
        let mut scenario = Scenario::new();
        scenario.answers((0..=90).step_by(5));
        scenario.absences.listed(scenario.at(95), &[scenario.node], false);
        assert!(!scenario.absences.any(scenario.at(96)));
        assert_eq!(scenario.query(97), Absence::Unknown);
    }

    #[test]
    fn a_run_that_was_not_continued_proves_nothing() {
        let mut scenario = Scenario::new();
        scenario.answers((0..=200).step_by(5));
        assert!(matches!(scenario.query(211), Absence::Missing { .. }));
    }

    #[test]
    fn a_node_that_is_not_queried_is_no_longer_watched() {
        let mut scenario = Scenario::new();
        assert!(scenario.absences.any(scenario.at(599)));
        assert!(!scenario.absences.any(scenario.at(601)));
    }
}
