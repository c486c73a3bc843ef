//! Whether Flocker answers, and the two lines of the log about each outage.

use std::time::Duration;

use tokio::time::Instant;

use crate::operation::Elapsed;

/// What the reads so far show about Flocker.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    /// When it last answered a read.
    pub(super) good: Option<Instant>,
    /// When and why the last failed read failed.
    pub(super) bad: Option<(Instant, String)>,
    /// When the first of the reads failed that have failed since the last answer.
    failing_since: Option<Instant>,
}

/// The begin or the end of an outage. It is logged by the caller, outside of its locks.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The reads fail from now on, for this reason.
    Stopped(String),
    /// Flocker answers again, after this time.
    Answers(Duration),
}

impl Health {
    pub(super) fn answered(&mut self, now: Instant) -> Option<Turn> {
        self.good = Some(now);
        let since = self.failing_since.take()?;
        Some(Turn::Answers(now - since))
    }

    pub(super) fn failed(&mut self, now: Instant, problem: String) -> Option<Turn> {
        let first = self.failing_since.is_none();
        self.failing_since.get_or_insert(now);
        let turn = first.then(|| Turn::Stopped(problem.clone()));
        self.bad = Some((now, problem));
        turn
    }

    /// Whether the last read was answered; `None` before the first one has ended.
    pub(super) fn is_good(&self) -> Option<bool> {
        match (self.failing_since, self.good) {
            (None, None) => None,
            (failing, _) => Some(failing.is_none()),
        }
    }
}

impl Turn {
    /// Logs the turn: once for each outage, however many calls fail in it.
    pub(super) fn log(self) {
        match self {
            Self::Stopped(problem) => tracing::warn!(
                error = %problem,
                "Flocker does not answer; calls that need it fail until it does, and staged volumes stay in use"
            ),
            Self::Answers(after) => {
                tracing::info!("Flocker answers again, after {}", Elapsed(after));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_begins_and_ends_once_however_many_reads_fail_in_it() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!(health.is_good(), None);
        assert_eq!(health.answered(now), None);
        assert_eq!(health.is_good(), Some(true));
        let stopped = Turn::Stopped("refused".to_owned());
        assert_eq!(health.failed(now, "refused".to_owned()), Some(stopped));
        for _ in 0..100 {
            assert_eq!(health.failed(now, "timed out".to_owned()), None);
        }
        assert_eq!(health.is_good(), Some(false));
        assert_eq!(health.bad.as_ref().unwrap().1, "timed out");
        let after = Duration::from_secs(9);
        assert_eq!(health.answered(now + after), Some(Turn::Answers(after)));
        assert_eq!(health.answered(now + after), None);
        assert_eq!(health.is_good(), Some(true));
    }
}
