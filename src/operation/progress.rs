//! What a running operation waits for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::elapsed::Elapsed;
use super::phase::Phase;
use crate::error::Situation;
use crate::volume::VolumeLabels;

/// How long a phase takes at most on a healthy cluster.
const UNUSUAL: Duration = Duration::from_secs(20);

/// What a running operation waits for, and since when.
#[derive(Clone, Debug)]
pub(crate) struct OperationProgress {
    /// What it waits for.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
    /// When it last began to wait for that: later than `since` after an interruption.
    pub entered: Instant,
    /// What people call the volume that it works on, once known.
    pub labels: Option<Arc<VolumeLabels>>,
    /// The dataset that it works on, once known.
    pub dataset: Option<Uuid>,
    /// The phase that the present one interrupts, and when that phase began.
    interrupted: Option<(Phase, Instant)>,
    /// What an earlier operation for the same waited for when it ended.
    earlier: Option<Wait>,
}

/// A wait, and when it began.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wait {
    pub(super) phase: Phase,
    pub(super) since: Instant,
}

impl OperationProgress {
    /// Returns the progress of an operation that continues a wait of an earlier one, if there was one.
    pub(super) fn after(earlier: Option<Wait>) -> Self {
        Self {
            earlier,
            ..Self::default()
        }
    }

    /// Returns what the operation waits for beside interruptions, if it waits for anything.
    pub(super) fn wait(&self) -> Option<Wait> {
        let (phase, since) = match &self.interrupted {
            Some((phase, since)) => (phase, *since),
            None => (&self.phase, self.since),
        };
        let waits = *phase != Phase::Starting && !phase.interrupts();
        waits.then(|| Wait {
            phase: phase.clone(),
            since,
        })
    }

    /// Enters `phase`; returns whether it differs from the one before.
    ///
    /// An interrupted phase keeps its start: a wait for a mount is one wait, although Flocker is read during it.
    pub(super) fn enter(&mut self, phase: Phase) -> bool {
        if self.phase == phase {
            return false;
        }
        let since = match (&self.interrupted, &self.earlier) {
            (Some((interrupted, since)), _) if *interrupted == phase => *since,
            (_, Some(earlier)) if earlier.phase == phase => earlier.since,
            _ => Instant::now(),
        };
        // What follows another wait is a new one.
        if !phase.interrupts() {
            self.earlier.take_if(|earlier| earlier.phase != phase);
        }
        let left = (
            std::mem::replace(&mut self.phase, phase),
            std::mem::replace(&mut self.since, since),
        );
        self.entered = Instant::now();
        if !self.phase.interrupts() {
            self.interrupted = None;
        } else if !left.0.interrupts() {
            self.interrupted = Some(left);
        }
        true
    }

    /// Returns the situation of a caller whose deadline comes in this phase.
    pub(super) fn situation_at_deadline(&self) -> Situation {
        match self.phase {
            Phase::FlockerAnswering => Situation::FlockerUnavailable,
            Phase::NodeReporting { .. } => Situation::NodeNotReporting,
            Phase::OtherOperation | Phase::FileSystemAnswering { .. } => Situation::Busy,
            Phase::Starting
            | Phase::LeaseOfNode { .. }
            | Phase::Configured { .. }
            | Phase::BackingVolume { .. }
            | Phase::ReleasedByOtherNode { .. }
            | Phase::ReleasedByUnknownNode
            | Phase::MountedHere { .. }
            | Phase::NotReceivedHere { .. }
            | Phase::FinishedHere { .. }
            | Phase::Destroyed { .. }
            | Phase::Caller => Situation::StillConverging,
        }
    }
}

impl Default for OperationProgress {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            phase: Phase::Starting,
            since: now,
            entered: now,
            labels: None,
            dataset: None,
            interrupted: None,
            earlier: None,
        }
    }
}

impl fmt::Display for OperationProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.phase, Elapsed(self.since.elapsed()))?;
        match &self.interrupted {
            Some((phase, since)) if *phase != Phase::Starting => {
                write!(
                    f,
                    ", and before that {phase}, which began {} ago",
                    Elapsed(since.elapsed())
                )?;
            }
            Some(_) | None => {}
        }
        if let Some(dataset) = self.dataset {
            write!(f, " (dataset {dataset})")?;
        }
        match self.phase.hint() {
            Some(hint) if self.since.elapsed() >= UNUSUAL => write!(f, "; {hint}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn mounted() -> Phase {
        Phase::MountedHere {
            node: Uuid::nil(),
            path: "/flocker/1".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupted_phase_keeps_its_start() {
        let mut progress = OperationProgress::default();
        progress.enter(mounted());
        advance(Duration::from_secs(20)).await;
        progress.enter(Phase::FlockerAnswering);
        advance(Duration::from_secs(2)).await;
        progress.enter(Phase::OtherOperation);
        advance(Duration::from_secs(3)).await;
        let text = progress.to_string();
        assert!(
            text.contains("another operation on the volume to end for 3.0 s")
                && text.contains("nothing is mounted at /flocker/1")
                && text.contains("began 25.0 s ago"),
            "{text}"
        );
        assert_eq!(progress.situation_at_deadline(), Situation::Busy);
        progress.enter(mounted());
        let text = progress.to_string();
        assert!(
            text.contains("yet for 25.0 s; the log of Flocker's agent"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_phase_that_was_left_for_another_one_starts_again() {
        let mut progress = OperationProgress::default();
        progress.enter(mounted());
        advance(Duration::from_secs(20)).await;
        progress.enter(Phase::NodeReporting { node: Uuid::nil() });
        progress.enter(Phase::FlockerAnswering);
        progress.enter(mounted());
        assert!(progress.to_string().ends_with("yet for 0.0 s"), "{progress}");
    }
}
