//! When a node counts as gone.
//!
//! Absence is never proof: a control service that has just started lists no node at all, and one that cannot be
//! reached says nothing. A node is gone only after an unbroken run of good answers, each listing some node and
//! none listing this one, that spans the grace period with no gap over [`LONGEST_GAP`].

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// The longest time between two answers of a run.
const LONGEST_GAP: Duration = Duration::from_secs(10);
/// A node nobody has asked about for this long is not watched any more.
pub(super) const FORGET: Duration = Duration::from_secs(600);
/// How often the nodes are listed while one of them is missing.
pub(super) const WATCH_EVERY: Duration = Duration::from_secs(5);

/// What is known about a node that was not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It is not, or not yet, known to be missing.
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
    asked: Instant,
}

/// The nodes that somebody misses.
#[derive(Debug)]
pub(super) struct Absences {
    grace: Duration,
    last_good: Option<Instant>,
    watched: HashMap<Uuid, Watched>,
}

impl Absences {
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            last_good: None,
            watched: HashMap::new(),
        }
    }

    /// Returns what is known about `node` and keeps it watched.
    pub(super) fn ask(&mut self, node: Uuid, now: Instant) -> Absence {
        let watched = self.watched.entry(node).or_insert(Watched {
            missing_since: None,
            asked: now,
        });
        watched.asked = now;
        match (watched.missing_since, self.last_good) {
            (Some(since), Some(good))
                if good.duration_since(since) >= self.grace && now - good <= LONGEST_GAP =>
            {
                Absence::Gone
            }
            (Some(since), _) => Absence::Missing { since },
            (None, _) => Absence::Unknown,
        }
    }

    /// Takes in the answer of a flight that began at `began`.
    pub(super) fn listed(&mut self, began: Instant, nodes: &[Uuid]) {
        if nodes.is_empty() {
            return self.broken();
        }
        if self
            .last_good
            .is_some_and(|good| began.saturating_duration_since(good) > LONGEST_GAP)
        {
            self.broken();
        }
        self.last_good = Some(self.last_good.map_or(began, |good| good.max(began)));
        self.watched
            .retain(|node, watched| !nodes.contains(node) && began - watched.asked <= FORGET);
        for watched in self.watched.values_mut() {
            watched.missing_since.get_or_insert(began);
        }
    }

    /// Takes in that a flight failed: every run starts again.
    pub(super) fn broken(&mut self) {
        self.last_good = None;
        for watched in self.watched.values_mut() {
            watched.missing_since = None;
        }
    }

    /// Whether somebody still misses a node.
    pub(super) fn any(&mut self, now: Instant) -> bool {
        self.watched.retain(|_, watched| now - watched.asked <= FORGET);
        !self.watched.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(180);

    struct Story {
        absences: Absences,
        start: Instant,
        node: Uuid,
        other: Uuid,
    }

    impl Story {
        fn new() -> Self {
            let (node, other) = (Uuid::new_v4(), Uuid::new_v4());
            let mut story = Self {
                absences: Absences::new(GRACE),
                start: Instant::now(),
                node,
                other,
            };
            assert_eq!(story.ask(0), Absence::Unknown);
            story
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn ask(&mut self, second: u64) -> Absence {
            self.absences.ask(self.node, self.at(second))
        }

        fn answers(&mut self, seconds: impl Iterator<Item = u64>) {
            for second in seconds {
                self.absences.listed(self.at(second), &[self.other]);
            }
        }
    }

    #[test]
    fn a_node_is_gone_after_an_unbroken_run_over_the_grace_period() {
        let mut story = Story::new();
        story.answers((0..=175).step_by(5));
        assert!(matches!(story.ask(176), Absence::Missing { .. }));
        story.answers((180..=180).step_by(5));
        assert_eq!(story.ask(181), Absence::Gone);
    }

    #[test]
    fn an_empty_list_a_failure_or_a_gap_starts_the_run_again() {
        for breaker in 0..3 {
            let mut story = Story::new();
            story.answers((0..=90).step_by(5));
            match breaker {
                0 => story.absences.listed(story.at(95), &[]),
                1 => story.absences.broken(),
                _ => {} // nothing is heard between 90 and 101
            }
            story.answers((101..=271).step_by(5));
            assert!(!matches!(story.ask(272), Absence::Gone), "breaker {breaker}");
            story.answers((276..=286).step_by(5));
            assert_eq!(story.ask(287), Absence::Gone, "breaker {breaker}");
        }
    }

    #[test]
    fn a_node_that_is_listed_again_is_not_watched_any_more() {
        let mut story = Story::new();
        story.answers((0..=90).step_by(5));
        story.absences.listed(story.at(95), &[story.node]);
        assert!(!story.absences.any(story.at(96)));
        assert_eq!(story.ask(97), Absence::Unknown);
    }

    #[test]
    fn a_run_nobody_has_continued_proves_nothing() {
        let mut story = Story::new();
        story.answers((0..=200).step_by(5));
        assert!(matches!(story.ask(211), Absence::Missing { .. }));
    }

    #[test]
    fn a_node_nobody_asks_about_is_forgotten() {
        let mut story = Story::new();
        assert!(story.absences.any(story.at(599)));
        assert!(!story.absences.any(story.at(601)));
    }
}
