//! Operations that outlive their callers.
//!
//! tonic drops a handler when its client disconnects, at any await of the handler. So every mutation runs in a
//! task of its own: equal calls join it, other calls for the same slot wait for its end, and the inverse call cancels
//! it. Without a caller it may still wait and write to Flocker; a step that mounts starts only while a caller waits
//! ([`Context::caller_waiting`]), because an orchestrator removes the directory tree after a successful unstage.

mod callers;
mod context;
pub(crate) mod deadline;
mod earlier_waits;
mod elapsed;
mod locks;
mod phase;
mod progress;
mod running;
mod subject;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tracing::{Instrument, Span};

pub(crate) use context::Context;
use earlier_waits::EarlierWaits;
pub(crate) use elapsed::Elapsed;
pub use locks::Locks;
pub(crate) use locks::VolumeGuard;
pub(crate) use phase::{Phase, Wanted};
pub(crate) use progress::OperationProgress;
pub(crate) use running::RunningOperation;
pub(crate) use subject::Subject;

use crate::error::{Error, Result, Situation};
use crate::operation::deadline::Deadline;
use crate::telemetry::{Metrics, Trace, log_names, record, record_number};
use running::{CallerGuard, Running};

/// What a call does. Equal operations are one; operations with an equal slot exclude each other.
///
/// `Display` completes the sentence "…: waiting for …", as in `attaching volume V to node N`.
pub(crate) trait Operation: Clone + fmt::Display + PartialEq + Send + Sync + 'static {
    /// What only one operation may work on at a time.
    type Slot: Clone + Eq + Hash + Send + Sync + 'static;

    /// Returns what is done, in one word, for metrics: `attach`.
    fn name(&self) -> &'static str;

    /// Returns what the operation is about, for the log.
    fn subject(&self) -> Subject<'_>;

    /// Returns the slot of this operation.
    fn slot(&self) -> Self::Slot;

    /// Whether this is the inverse of an operation that runs in the same slot, which is cancelled then.
    fn is_inverse_of(&self, _running: &Self) -> bool {
        false
    }
}

/// The next operation of this process; lines of one operation have its number in common.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// How many operations of one kind may run. They outlive their callers, so the number of callers does not limit them.
const MOST: usize = 4096;

/// For how many operations, or volumes, room is kept while there are none. What thousands took is returned.
const FEW: usize = 16;

/// Describes the state of Flocker, for the message to a caller whose deadline has come.
pub(crate) type Describe = Arc<dyn Fn() -> String + Send + Sync>;

type Slots<O, T> = Arc<Mutex<HashMap<<O as Operation>::Slot, Running<O, T>>>>;

/// The operations of one kind that are running in this process.
pub(crate) struct Operations<O: Operation, T> {
    slots: Slots<O, T>,
    earlier: Arc<Mutex<EarlierWaits<O>>>,
    describe: Describe,
    metrics: Metrics,
}

impl<O: Operation, T: Clone + Send + Sync + 'static> Operations<O, T> {
    /// Makes an empty set. `describe` adds the state of Flocker to messages about unfinished work; `metrics` measures
    /// the phases.
    pub(crate) fn new(describe: Describe, metrics: Metrics) -> Self {
        Self {
            slots: Arc::default(),
            earlier: Arc::default(),
            describe,
            metrics,
        }
    }

    /// Returns the operations that are running, for metrics.
    pub(crate) fn running(&self) -> Vec<RunningOperation> {
        let slots = self.lock();
        slots.values().map(Running::describe).collect()
    }

    /// Runs `work` in a task of its own, or joins the equal operation that is already running.
    ///
    /// # Errors
    /// The operation's own error; [`Situation::StillConverging`], [`Situation::NodeNotReporting`] or
    /// [`Situation::Busy`] when `deadline` comes first: the work continues, and an equal operation joins it;
    /// [`Situation::Busy`] when too many operations are running.
    pub(crate) async fn run<W, F>(&self, operation: O, deadline: Deadline, work: W) -> Result<T>
    where
        W: FnOnce(Context) -> F,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let call = Span::current();
        operation.subject().record_in(&call);
        let mut work = Some(work);
        loop {
            let other = match self.join_or_start(&operation, deadline, &mut work) {
                Joined::Equal(running, _caller) => {
                    record(&call, "operation.name", operation.name());
                    record_number(&call, "operation.id", running.id());
                    Trace::current().link_to(running.trace());
                    let answer = self.answer(&operation, &running, deadline).await;
                    name_in_log(&operation, &running.progress(), &call, answer.is_ok());
                    return answer;
                }
                Joined::Other(running) => running,
                Joined::Full => {
                    let text = format!(
                        "{operation}: {MOST} other operations of this kind are running, which is all that the plugin runs at \
                         the same time; try again when one has ended ({})",
                        (self.describe)()
                    );
                    return Err(Error::new(Situation::Busy, text));
                }
            };
            if operation.is_inverse_of(other.operation()) {
                other.cancel();
            }
            if tokio::time::timeout_at(deadline.answer_by(), other.ended())
                .await
                .is_err()
            {
                return Err(Error::new(
                    Situation::Busy,
                    format!(
                        "{operation}: {other} is still running ({}); try again when it has ended",
                        other.progress()
                    ),
                ));
            }
        }
    }

    /// Cancels every running operation that `selects` returns true for, and waits until each has ended.
    ///
    /// # Errors
    /// [`Situation::Busy`] when one has not ended at `deadline`.
    pub(crate) async fn cancel(
        &self,
        deadline: Deadline,
        selects: impl Fn(&O, &OperationProgress) -> bool,
    ) -> Result<()> {
        let selected: Vec<_> = self
            .lock()
            .values()
            .filter(|running| selects(running.operation(), &running.progress()))
            .cloned()
            .collect();
        for running in &selected {
            running.cancel();
        }
        for running in selected {
            if tokio::time::timeout_at(deadline.answer_by(), running.ended())
                .await
                .is_err()
            {
                return Err(Error::new(
                    Situation::Busy,
                    format!(
                        "{running} was cancelled and has not ended yet ({}); try again",
                        running.progress()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether an operation is running that `selects` returns true for.
    pub(crate) fn any(&self, selects: impl Fn(&O, &OperationProgress) -> bool) -> bool {
        self.lock()
            .values()
            .any(|running| selects(running.operation(), &running.progress()))
    }

    /// Cancels every running operation and waits until each has ended, for a graceful stop.
    pub(crate) async fn stop(&self) {
        let all: Vec<_> = self.lock().values().cloned().collect();
        for running in &all {
            running.cancel();
        }
        for running in all {
            running.ended().await;
        }
    }

    fn join_or_start<W, F>(&self, operation: &O, deadline: Deadline, work: &mut Option<W>) -> Joined<O, T>
    where
        W: FnOnce(Context) -> F,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut slots = self.lock();
        if let Some(running) = slots.get(&operation.slot()) {
            return if running.operation() == operation
                && let Some(caller) = running.join(deadline)
            {
                Joined::Equal(running.clone(), caller)
            } else {
                Joined::Other(running.clone())
            };
        }
        if slots.len() >= MOST {
            return Joined::Full;
        }
        let work = work
            .take()
            .expect("an operation is started at most once per call");
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let earlier = locked(&self.earlier).take(operation, Instant::now());
        let metrics = self.metrics.clone();
        let (running, caller, task) = Running::start(id, operation.clone(), deadline, metrics, earlier, work);
        slots.insert(operation.slot(), running.clone());
        let (slots, earlier) = (Arc::clone(&self.slots), Arc::clone(&self.earlier));
        let slot = operation.slot();
        let started = running.clone();
        let ending = async move {
            let result = task.await;
            if result.is_err()
                && let Some(wait) = started.progress().wait()
            {
                locked(&earlier).ended(started.operation().clone(), wait, Instant::now());
            }
            // The slot is free before the result is out: a caller that has the result may start the next operation.
            let mut slots = locked(&slots);
            slots.remove(&slot);
            if slots.is_empty() {
                slots.shrink_to(FEW);
            }
            drop(slots);
            started.finish(result);
        };
        // In the span of the call that begins it, which has all its fields. A span of its own for each of thousands of operations
        // would take memory that is never returned.
        running.trace().spawn(ending.instrument(Span::current()));
        Joined::Equal(running, caller)
    }

    async fn answer(&self, operation: &O, running: &Running<O, T>, deadline: Deadline) -> Result<T> {
        if let Ok(result) = tokio::time::timeout_at(deadline.answer_by(), running.result()).await {
            return result;
        }
        let progress = running.progress();
        Err(Error::new(
            progress.situation_at_deadline(),
            format!(
                "{operation}: {progress}; the work continues, try again ({})",
                (self.describe)()
            ),
        ))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<O::Slot, Running<O, T>>> {
        locked(&self.slots)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records in the span of a call what its operation has found out about the volume and, where it succeeded, lets later lines
/// about the volume say it too: callers that insist while nothing succeeds add nothing to what is remembered.
fn name_in_log<O: Operation>(operation: &O, progress: &OperationProgress, call: &Span, succeeded: bool) {
    let subject = operation.subject();
    let labels = progress.labels.as_deref().unwrap_or(&subject.labels);
    labels.record_in(call);
    let Some(dataset) = progress.dataset else { return };
    // A new volume has no id before.
    if subject.volume_id.is_none() {
        record(call, "volume.id", dataset);
    }
    let fields = labels.fields();
    if succeeded && !fields.is_empty() {
        log_names::remember(dataset, fields);
    }
}

/// The operation in a slot.
enum Joined<O, T> {
    /// An equal one, which the caller has joined or started.
    Equal(Running<O, T>, CallerGuard),
    /// A different one, or one that is being cancelled.
    Other(Running<O, T>),
    /// None, and no more may start.
    Full,
}

#[cfg(test)]
mod tests;
