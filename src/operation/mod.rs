//! Operations that outlive their callers.
//!
//! tonic drops a handler when its caller goes away, wherever the handler happens to wait. So every mutation runs
//! in a task of its own: callers that ask for the same thing join it, callers that ask for something else about
//! the same slot wait for its end, and the opposite call cancels it. What may go on without a caller is waiting
//! and writing to Flocker; a step that mounts starts only while somebody still waits for it
//! ([`Context::caller_waiting`]), because an orchestrator that was told "unstaged" removes the directory tree.

mod callers;
mod context;
pub mod deadline;
mod locks;
mod progress;
mod running;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

pub use context::Context;
pub use locks::{Locks, VolumeGuard};
pub use progress::{Phase, Progress, Wanted};

use crate::error::{Error, Result, Situation};
use crate::operation::deadline::Deadline;
use running::{CallerGuard, Running};

/// What a caller asks for. Equal calls are one operation; calls with an equal slot exclude each other.
///
/// `Display` completes the sentence "…: waiting for …", as in `attaching volume V to node N`.
pub trait Call: Clone + fmt::Display + PartialEq + Send + Sync + 'static {
    /// The thing only one operation may work on at a time.
    type Slot: Clone + Eq + Hash + Send + Sync + 'static;

    /// Returns the slot of this call.
    fn slot(&self) -> Self::Slot;

    /// Whether this call is the opposite of one that runs in the same slot, which is cancelled then.
    fn undoes(&self, _running: &Self) -> bool {
        false
    }
}

/// Tells the state of what operations wait for, for the message to a caller whose deadline has come.
pub type Describe = Arc<dyn Fn() -> String + Send + Sync>;

type Slots<C, T> = Arc<Mutex<HashMap<<C as Call>::Slot, Running<C, T>>>>;

/// The operations of one kind that are running in this process.
pub struct Operations<C: Call, T> {
    slots: Slots<C, T>,
    describe: Describe,
}

impl<C: Call, T: Clone + Send + Sync + 'static> Operations<C, T> {
    /// Makes an empty set. `describe` adds the health of Flocker to messages about unfinished work.
    pub fn new(describe: Describe) -> Self {
        Self {
            slots: Arc::default(),
            describe,
        }
    }

    /// Runs `work` in a task of its own, or joins the equal operation that is already running.
    ///
    /// # Errors
    /// The operation's own error; [`Situation::StillConverging`], [`Situation::NodeNotReporting`] or
    /// [`Situation::Busy`] when `deadline` comes first: the work then goes on, and an equal call joins it.
    pub async fn run<W, F>(&self, call: C, deadline: Deadline, work: W) -> Result<T>
    where
        W: FnOnce(Context) -> F,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut work = Some(work);
        loop {
            let other = match self.join_or_start(&call, deadline, &mut work) {
                Joined::Equal(running, _caller) => return self.answer(&call, running, deadline).await,
                Joined::Other(running) => running,
            };
            if call.undoes(other.call()) {
                other.cancel();
            }
            if tokio::time::timeout_at(deadline.answer_by(), other.ended())
                .await
                .is_err()
            {
                return Err(Error::new(
                    Situation::Busy,
                    format!(
                        "{call}: {other} is still running ({}); try again when it has ended",
                        other.progress()
                    ),
                ));
            }
        }
    }

    /// Cancels every running operation that `selects` picks and waits until each has ended.
    ///
    /// # Errors
    /// [`Situation::Busy`] when one has not ended at `deadline`.
    pub async fn cancel(&self, deadline: Deadline, selects: impl Fn(&C, &Progress) -> bool) -> Result<()> {
        let selected: Vec<_> = self
            .lock()
            .values()
            .filter(|running| selects(running.call(), &running.progress()))
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
                        "{running} was told to stop and has not yet ({})",
                        running.progress()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Cancels everything and waits for the end of it, for a graceful stop.
    pub async fn stop(&self) {
        let all: Vec<_> = self.lock().values().cloned().collect();
        for running in &all {
            running.cancel();
        }
        for running in all {
            running.ended().await;
        }
    }

    fn join_or_start<W, F>(&self, call: &C, deadline: Deadline, work: &mut Option<W>) -> Joined<C, T>
    where
        W: FnOnce(Context) -> F,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut slots = self.lock();
        if let Some(running) = slots.get(&call.slot()) {
            return if running.call() == call
                && let Some(caller) = running.join(deadline)
            {
                Joined::Equal(running.clone(), caller)
            } else {
                Joined::Other(running.clone())
            };
        }
        let work = work
            .take()
            .expect("an operation is started at most once per call");
        let (running, caller, task) = Running::start(call.clone(), deadline, work);
        slots.insert(call.slot(), running.clone());
        let slots = Arc::clone(&self.slots);
        let slot = call.slot();
        let started = running.clone();
        tokio::spawn(async move {
            let result = task.await;
            // The slot is free before the result is out: whoever reads the result may start the next operation.
            slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&slot);
            started.finish(result);
        });
        Joined::Equal(running, caller)
    }

    async fn answer(&self, call: &C, running: Running<C, T>, deadline: Deadline) -> Result<T> {
        if let Ok(result) = tokio::time::timeout_at(deadline.answer_by(), running.result()).await {
            return result;
        }
        let progress = running.progress();
        Err(Error::new(
            progress.situation_at_deadline(),
            format!(
                "{call}: {progress}; the work goes on, try again ({})",
                (self.describe)()
            ),
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<C::Slot, Running<C, T>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The operation in a slot.
enum Joined<C, T> {
    /// An equal one, which the caller has joined or started.
    Equal(Running<C, T>, CallerGuard),
    /// A different one, or one that is being cancelled.
    Other(Running<C, T>),
}

#[cfg(test)]
mod tests;
