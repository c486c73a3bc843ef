//! Logs what Flocker's state shows about volumes: when one becomes abnormal, and when it is healthy again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::condition::Condition;
use super::volume_list::VolumeList;
use crate::telemetry::AbnormalVolumes;

/// How long a condition that may pass has to last before it is logged. Agents connect again within half a minute.
const PASSES_WITHIN: Duration = Duration::from_secs(45);
/// How many volumes with such a condition are remembered.
const MOST_PASSING: usize = 1000;

/// What was logged about volumes.
#[derive(Debug, Default)]
pub(super) struct ConditionLog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    volumes: AbnormalVolumes<&'static str>,
    /// Since when volumes have a condition that may pass.
    passing: HashMap<Uuid, Instant>,
    /// When all volumes were listed last.
    listed: Option<Instant>,
}

impl ConditionLog {
    /// Notes the conditions in a list of all volumes that are served.
    pub(super) fn listed(&self, list: &VolumeList) {
        let mut state = self.lock();
        state.listed = Some(Instant::now());
        // The list is ordered.
        let exists = |dataset: Uuid| list.position(dataset).is_ok();
        state.volumes.keep(exists);
        state.passing.retain(|dataset, _| exists(*dataset));
        for (dataset, condition) in list.conditions() {
            state.note(dataset, condition);
        }
    }

    /// Returns how long ago all volumes were listed.
    pub(super) fn age(&self) -> Option<Duration> {
        self.lock().listed.map(|listed| listed.elapsed())
    }

    /// Notes the condition of one volume.
    pub(super) fn found(&self, dataset: Uuid, condition: &Condition) {
        self.lock().note(dataset, condition);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, dataset: Uuid, condition: &Condition) {
        let Some(reason) = condition.fault() else {
            self.passing.remove(&dataset);
            // While Flocker starts, nothing is known of it.
            if *condition != Condition::Unknown {
                self.volumes.healthy(dataset);
            }
            return;
        };
        if condition.may_pass() {
            if self.passing.len() >= MOST_PASSING && !self.passing.contains_key(&dataset) {
                return;
            }
            let since = self.passing.entry(dataset).or_insert_with(Instant::now);
            if since.elapsed() < PASSES_WITHIN {
                return;
            }
        } else {
            self.passing.remove(&dataset);
        }
        self.volumes.abnormal(dataset, reason, condition);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tokio::time::advance;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    const NODE: Uuid = Uuid::from_u128(0xa);
    const VOLUME: Uuid = Uuid::from_u128(1);

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    impl Lines {
        /// Returns what was logged since the last call.
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    fn log_to(lines: &Lines) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(lines.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_and_its_end_are_logged_once_each() {
        let (lines, log) = (Lines::default(), ConditionLog::default());
        let _logging = log_to(&lines);
        log.found(VOLUME, &Condition::Unreadable);
        let line = lines.take();
        assert!(
            line.contains("WARN") && line.contains("is abnormal: Flocker has it, but"),
            "{line}"
        );
        for _ in 0..10 {
            advance(PASSES_WITHIN).await;
            log.found(VOLUME, &Condition::Unreadable);
            log.found(VOLUME, &Condition::Unknown);
        }
        assert_eq!(lines.take(), "");
        for _ in 0..2 {
            log.found(VOLUME, &Condition::Mounted { node: NODE });
        }
        let line = lines.take();
        assert!(
            line.contains("INFO") && line.contains("is healthy again"),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1, "{line}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_logged_if_it_does_not() {
        let (lines, log) = (Lines::default(), ConditionLog::default());
        let _logging = log_to(&lines);
        let missing = Condition::PrimaryMissing { primary: NODE };
        for _ in 0..3 {
            log.found(VOLUME, &missing);
            advance(PASSES_WITHIN / 2).await;
            log.found(VOLUME, &missing);
            log.found(VOLUME, &Condition::Mounted { node: NODE });
        }
        assert_eq!(lines.take(), "");
        log.found(VOLUME, &missing);
        advance(PASSES_WITHIN).await;
        log.found(VOLUME, &missing);
        assert!(lines.take().contains("does not report to Flocker"));
        // One that was deleted is neither abnormal nor healthy.
        log.listed(&VolumeList::default());
        log.found(VOLUME, &Condition::Mounted { node: NODE });
        assert_eq!(lines.take(), "");
    }
}
