//! What an agent logs of its steps: each success, and each failure once.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::outcome::Outcome;
use crate::backend::StepError;
use crate::error::chain;

/// The failures of the last iteration of one agent.
#[derive(Debug)]
pub(super) struct Failures {
    node_number: usize,
    steps: BTreeMap<Uuid, Failure>,
    unexamined: BTreeMap<Uuid, Failure>,
    observation: Failure,
}

/// A reason and how often it occurred in succession.
#[derive(Debug, Default)]
struct Failure {
    reason: String,
    times: u32,
}

impl Failure {
    /// Counts a failure, and returns the reason if it is to be logged.
    fn count(&mut self, error: &StepError) -> Option<&str> {
        let reason = chain(error);
        if reason != self.reason {
            *self = Self { reason, times: 0 };
        }
        self.times = self.times.saturating_add(1);
        let threshold = if error.is_transient() { 2 } else { 1 };
        (self.times == threshold).then_some(&self.reason)
    }
}

impl Failures {
    pub(super) fn new(node_number: usize) -> Self {
        Self {
            node_number,
            steps: BTreeMap::new(),
            unexamined: BTreeMap::new(),
            observation: Failure::default(),
        }
    }

    /// Records the outcomes of an iteration, and returns whether any step succeeded.
    pub(super) fn record(&mut self, outcomes: Vec<Outcome>) -> bool {
        let mut before = std::mem::take(&mut self.steps);
        let mut progress = false;
        for (dataset, outcome) in outcomes {
            match outcome {
                Ok(done) => {
                    progress = true;
                    tracing::info!(dataset.id = %dataset, "{done} dataset {dataset} on node {}", self.node_number);
                }
                Err(error) => {
                    let mut failure = before.remove(&dataset).unwrap_or_default();
                    if let Some(reason) = failure.count(&error) {
                        tracing::warn!(
                            dataset.id = %dataset,
                            "A step of dataset {dataset} on node {} has failed: {reason}. The agent tries it again",
                            self.node_number
                        );
                    }
                    self.steps.insert(dataset, failure);
                }
            }
        }
        progress
    }

    /// Records that the agent could not observe any dataset.
    pub(super) fn record_failed_observation(&mut self, error: &StepError) {
        if let Some(reason) = self.observation.count(error) {
            tracing::error!(
                "The agent of node {} cannot observe its datasets, and tries again: {reason}",
                self.node_number
            );
        }
    }

    /// Records which datasets could not be examined in an iteration that observed the others.
    pub(super) fn record_unexamined(&mut self, failures: Vec<(Uuid, StepError)>) {
        self.observation = Failure::default();
        let mut before = std::mem::take(&mut self.unexamined);
        for (dataset, error) in failures {
            let mut failure = before.remove(&dataset).unwrap_or_default();
            if let Some(reason) = failure.count(&error) {
                tracing::warn!(
                    dataset.id = %dataset,
                    "The agent of node {} cannot examine dataset {dataset}, and leaves it as it is until it can: \
                     {reason}",
                    self.node_number
                );
            }
            self.unexamined.insert(dataset, failure);
        }
    }

    /// Records that an iteration had no step to carry out.
    pub(super) fn forget_steps(&mut self) {
        self.steps.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::agent::outcome::Done;

    fn busy() -> StepError {
        StepError::Busy(PathBuf::from("/flocker/one"))
    }

    #[test]
    fn a_reason_is_logged_once_and_a_transient_one_only_when_it_repeats() {
        let mut failure = Failure::default();
        assert_eq!(failure.count(&busy()), None);
        assert!(
            failure
                .count(&busy())
                .is_some_and(|reason| reason.contains("/flocker/one"))
        );
        assert_eq!(failure.count(&busy()), None);

        let full = StepError::OverCapacity {
            size: 2,
            capacity: 1,
            free: 1,
        };
        assert!(failure.count(&full).is_some());
        assert_eq!(failure.count(&full), None);
    }

    #[test]
    fn an_iteration_makes_progress_if_any_step_succeeds() {
        let mut failures = Failures::new(1);
        assert!(!failures.record(vec![(Uuid::nil(), Err(busy()))]));
        assert!(failures.record(vec![(Uuid::nil(), Err(busy())), (Uuid::max(), Ok(Done::Mounted))]));
        assert_eq!(failures.steps.len(), 1);
    }
}
