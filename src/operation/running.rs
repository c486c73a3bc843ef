//! One operation and the callers that wait for it.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Operation;
use super::callers::{Callers, reached};
use super::context::{Context, PhaseTimes};
use super::progress::{OperationProgress, Wait};
use crate::error::{Error, Result};
use crate::operation::deadline::Deadline;
use crate::telemetry::{Metrics, Trace};

/// A handle on a running operation; clones are handles on the same one.
pub(super) struct Running<O, T> {
    operation: Arc<O>,
    callers: Arc<watch::Sender<Callers>>,
    progress: Arc<watch::Sender<OperationProgress>>,
    result: Arc<watch::Sender<Option<Result<T>>>>,
    cancelled: CancellationToken,
    began: Instant,
    id: u64,
    /// The span of the call that began it.
    trace: Trace,
}

impl<O, T> Clone for Running<O, T> {
    fn clone(&self) -> Self {
        Self {
            operation: Arc::clone(&self.operation),
            callers: Arc::clone(&self.callers),
            progress: Arc::clone(&self.progress),
            result: Arc::clone(&self.result),
            cancelled: self.cancelled.clone(),
            began: self.began,
            id: self.id,
            trace: self.trace.clone(),
        }
    }
}

/// An operation that is running, as metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunningOperation {
    /// The name of what it does: [`Operation::name`].
    pub(crate) operation: &'static str,
    /// The name of its phase.
    pub(crate) phase: &'static str,
    /// For how long it has been running.
    pub(crate) age: Duration,
}

/// A new operation: the handle, the guard of its first caller, and the future that does the work.
pub(super) type Started<O, T> = (Running<O, T>, CallerGuard, BoxFuture<'static, Result<T>>);

impl<O: Operation, T: Clone + Send + 'static> Running<O, T> {
    /// Makes an operation that one caller waits for, until `deadline`. The caller spawns its future.
    pub(super) fn start<W, F>(
        id: u64,
        operation: O,
        deadline: Deadline,
        metrics: Metrics,
        earlier: Option<Wait>,
        work: W,
    ) -> Started<O, T>
    where
        W: FnOnce(Context) -> F,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let callers = Arc::new(watch::Sender::new(Callers::one(deadline)));
        let first_caller = CallerGuard {
            callers: Arc::clone(&callers),
        };
        let progress = Arc::new(watch::Sender::new(OperationProgress::after(earlier)));
        let cancelled = CancellationToken::new();
        let doing = operation.to_string();
        let trace = Trace::current();
        let measured = PhaseTimes {
            operation: operation.name(),
            id,
            metrics,
            trace: trace.clone(),
        };
        let context = Context::new(
            doing.clone(),
            measured.clone(),
            Arc::clone(&progress),
            callers.subscribe(),
            cancelled.clone(),
        );
        let work = work(context);
        let abandoned = cancel_when_abandoned(Arc::clone(&callers), cancelled.clone());
        let running = Self {
            operation: Arc::new(operation),
            callers,
            progress,
            result: Arc::new(watch::Sender::new(None)),
            cancelled,
            began: Instant::now(),
            id,
            trace,
        };
        let progress = Arc::clone(&running.progress);
        let task = async move {
            let mut work = std::pin::pin!(AssertUnwindSafe(work).catch_unwind());
            let ended = tokio::select! {
                ended = &mut work => ended,
                () = abandoned => work.await,
            };
            let result = ended.unwrap_or_else(|_panic| Err(Error::panicked(doing)));
            measured.ended(&progress.borrow(), result.as_ref().err());
            result
        };
        (running, first_caller, task.boxed())
    }

    /// Returns the number of the operation in this process.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Returns the span of the call that began it.
    pub(super) fn trace(&self) -> &Trace {
        &self.trace
    }

    pub(super) fn operation(&self) -> &O {
        &self.operation
    }

    pub(super) fn progress(&self) -> OperationProgress {
        self.progress.borrow().clone()
    }

    pub(super) fn describe(&self) -> RunningOperation {
        RunningOperation {
            operation: self.operation.name(),
            phase: self.progress.borrow().phase.name(),
            age: self.began.elapsed(),
        }
    }

    pub(super) fn cancel(&self) {
        self.cancelled.cancel();
    }

    pub(super) fn finish(&self, result: Result<T>) {
        self.result.send_replace(Some(result));
    }

    /// Counts a caller until the guard is dropped; returns nothing when the operation has been cancelled.
    pub(super) fn join(&self, deadline: Deadline) -> Option<CallerGuard> {
        let joined = self.callers.send_if_modified(|callers| {
            let joins = !self.cancelled.is_cancelled();
            if joins {
                callers.add(deadline);
            }
            joins
        });
        joined.then(|| CallerGuard {
            callers: Arc::clone(&self.callers),
        })
    }

    pub(super) async fn result(&self) -> Result<T> {
        let mut result = self.result.subscribe();
        match result.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => result.clone(),
            Ok(None) | Err(_) => Err(Error::stopping(&self.operation)),
        }
    }

    pub(super) async fn ended(&self) {
        // An error means that the sender was dropped, and the task with it.
        self.result.subscribe().wait_for(Option::is_some).await.ok();
    }
}

impl<O: fmt::Display, T> fmt::Display for Running<O, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.operation)
    }
}

/// Counts one caller as waiting for as long as it lives.
pub(super) struct CallerGuard {
    callers: Arc<watch::Sender<Callers>>,
}

impl Drop for CallerGuard {
    fn drop(&mut self) {
        self.callers.send_modify(Callers::remove);
    }
}

/// Cancels the operation once it is abandoned.
async fn cancel_when_abandoned(callers: Arc<watch::Sender<Callers>>, cancelled: CancellationToken) {
    while !cancelled.is_cancelled() {
        reached(callers.subscribe(), Callers::abandoned_at).await;
        // Under the lock that joining takes, so that no caller joins between the decision and the cancellation.
        callers.send_if_modified(|callers| {
            if callers
                .abandoned_at()
                .is_some_and(|moment| moment <= Instant::now())
            {
                cancelled.cancel();
            }
            false
        });
    }
}
