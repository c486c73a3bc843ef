//! The registry of counters, and the task that logs what has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often changed counters are logged.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Declares the counters: the name in the log, and what is counted.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $counter:ident = $name:literal,)+) => {
        /// Something that is counted. A counter only grows, and starts at zero with the process.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Counter {
            $($(#[doc = $doc])+ $counter,)+
        }

        impl Counter {
            /// All counters, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$counter),+];

            /// Returns the name under which the counter is logged.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$counter => $name,)+
                }
            }

            /// Returns what is counted.
            pub fn help(self) -> &'static str {
                match self {
                    $(Self::$counter => concat!($($doc),+).trim(),)+
                }
            }
        }
    };
}

counters! {
    /// Leases that were acquired again because releasing another one had removed them.
    LeasesPutBack = "leases_put_back",
    /// Targets whose hidden files were set aside when a volume was unpublished.
    TargetContentsSetAside = "target_contents_set_aside",
    /// Attachments that the lease of another node prevented, or that lost the race for the lease.
    LeaseConflicts = "lease_conflicts",
    /// Leases that were taken from a node that is gone.
    LeasesTakenOver = "leases_taken_over",
    /// Lines of the log that could not be written.
    LogLinesLost = "log_lines_lost",
    /// Panics of background tasks, each of which was started again.
    TaskPanics = "task_panics",
    /// Directories, device nodes and records that could not be removed at once after an unmount.
    LeftBehind = "left_behind",
    /// Records that the disk did not take; what they say holds in this process only.
    RecordsNotWritten = "records_not_written",
    /// Staging records that could not be read.
    RecordsUnreadable = "records_unreadable",
    /// Leases that this node acquired again because a volume in use here had lost its own.
    LeasesAcquiredAgain = "leases_acquired_again",
    /// Volumes that were found staged here without a lease of this node.
    LeasesLost = "leases_lost",
    /// Volumes whose file system was shut down here because another node may have them.
    WritesStopped = "writes_stopped",
    /// Volumes that another node may have, and to which writes could not be stopped here.
    WritesNotStopped = "writes_not_stopped",
    /// Volumes without a lease of this node that were unstaged because nothing used them.
    VolumesLetGo = "volumes_let_go",
    /// Leases of this node that were found without anything of the volume here.
    LeasesUnexplained = "leases_unexplained",
    /// Entries of Flocker's lists that could not be read as a whole, each of them once.
    EntriesUnreadable = "entries_unreadable",
    /// Spans of traces that the collector did not get, because it does not answer or refused them.
    SpansDropped = "spans_dropped",
}

/// The counters of one plugin. Clones count together.
#[derive(Clone, Debug)]
pub struct Counters {
    values: Arc<[AtomicU64]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            values: Counter::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Counters {
    /// Counts one occurrence.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts several occurrences.
    pub fn add(&self, counter: Counter, occurrences: u64) {
        self.value(counter).fetch_add(occurrences, Ordering::Relaxed);
    }

    /// Returns how often `counter` has occurred.
    pub fn get(&self, counter: Counter) -> u64 {
        self.value(counter).load(Ordering::Relaxed)
    }

    /// Logs every counter that has changed, every ten seconds and at `shutdown`.
    pub(crate) async fn report(self, shutdown: CancellationToken) {
        let mut logged = vec![0; Counter::ALL.len()];
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        loop {
            let last = tokio::select! {
                () = shutdown.cancelled() => true,
                _ = ticks.tick() => false,
            };
            for (counter, value) in self.changes(&mut logged) {
                tracing::info!(
                    counter = counter.name(),
                    value,
                    "Counted: {} is {value}",
                    counter.name()
                );
            }
            if last {
                return;
            }
        }
    }

    /// Returns the counters whose values differ from those in `logged`, and notes the new values there.
    fn changes(&self, logged: &mut [u64]) -> Vec<(Counter, u64)> {
        let changed = Counter::ALL.iter().zip(logged).filter_map(|(counter, logged)| {
            let value = self.get(*counter);
            (std::mem::replace(logged, value) != value).then_some((*counter, value))
        });
        changed.collect()
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "there is one value for each counter, in their order"
    )]
    fn value(&self, counter: Counter) -> &AtomicU64 {
        &self.values[counter as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: HashSet<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
    }

    #[test]
    fn only_what_has_changed_is_reported_and_only_once() {
        let counters = Counters::default();
        let mut logged = vec![0; Counter::ALL.len()];
        assert_eq!(counters.changes(&mut logged), []);
        counters.clone().count(Counter::LeasesTakenOver);
        assert_eq!(counters.changes(&mut logged), [(Counter::LeasesTakenOver, 1)]);
        assert_eq!(counters.changes(&mut logged), []);
        assert_eq!(counters.get(Counter::LeasesPutBack), 0);
    }
}
