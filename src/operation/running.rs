//! One operation and those who wait for it.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::callers::Callers;
use super::context::Context;
use super::progress::Progress;
use crate::error::{Error, Result, Situation};
use crate::operation::deadline::Deadline;

/// A handle on a running operation; clones are handles on the same one.
pub(super) struct Running<C, T> {
    call: Arc<C>,
    callers: Arc<watch::Sender<Callers>>,
    progress: Arc<watch::Sender<Progress>>,
    result: Arc<watch::Sender<Option<Result<T>>>>,
    cancelled: CancellationToken,
}

impl<C, T> Clone for Running<C, T> {
    fn clone(&self) -> Self {
        Self {
            call: Arc::clone(&self.call),
            callers: Arc::clone(&self.callers),
            progress: Arc::clone(&self.progress),
            result: Arc::clone(&self.result),
            cancelled: self.cancelled.clone(),
        }
    }
}

impl<C: fmt::Display, T: Clone + Send + 'static> Running<C, T> {
    /// Makes the handle and the future that does the work; the caller spawns the latter.
    pub(super) fn new<W, F>(call: C, deadline: Deadline, work: W) -> (Self, BoxFuture<'static, Result<T>>)
    where
        W: FnOnce(Context) -> F,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        // Its first caller joins a moment later; until then it counts as waited for.
        let callers = Arc::new(watch::Sender::new(Callers {
            waiting: 0,
            longest: deadline.budget(),
            give_up_by: deadline.give_up_by(),
        }));
        let progress = Arc::new(watch::Sender::new(Progress::default()));
        let cancelled = CancellationToken::new();
        let doing = call.to_string();
        let context = Context::new(
            doing.clone(),
            Arc::clone(&progress),
            callers.subscribe(),
            cancelled.clone(),
        );
        let work = work(context);
        let abandoned = abandon(callers.subscribe(), cancelled.clone());
        let running = Self {
            call: Arc::new(call),
            callers,
            progress,
            result: Arc::new(watch::Sender::new(None)),
            cancelled,
        };
        let task = async move {
            let mut work = std::pin::pin!(AssertUnwindSafe(work).catch_unwind());
            let ended = tokio::select! {
                ended = &mut work => ended,
                () = abandoned => work.await,
            };
            ended.unwrap_or_else(|_panic| {
                let text =
                    format!("{doing}: a bug in flocker-csi ended the operation; its log has the details");
                Err(Error::new(Situation::Internal, text))
            })
        };
        (running, task.boxed())
    }

    pub(super) fn call(&self) -> &C {
        &self.call
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    pub(super) fn cancel(&self) {
        self.cancelled.cancel();
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    pub(super) fn finish(&self, result: Result<T>) {
        self.result.send_replace(Some(result));
    }

    /// Counts the caller in until the guard is dropped.
    pub(super) fn join(&self, deadline: Deadline) -> CallerGuard {
        self.callers.send_modify(|callers| {
            callers.waiting += 1;
            callers.longest = callers.longest.max(deadline.budget());
            callers.give_up_by = callers.give_up_by.max(deadline.give_up_by());
        });
        CallerGuard {
            callers: Arc::clone(&self.callers),
        }
    }

    pub(super) async fn result(&self) -> Result<T> {
        let mut result = self.result.subscribe();
        match result.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => result.clone(),
            Ok(None) | Err(_) => Err(Error::new(
                Situation::Busy,
                format!("{}: the plugin is stopping", self.call),
            )),
        }
    }

    pub(super) async fn ended(&self) {
        // An error means that the sender is gone, and with it the task.
        self.result.subscribe().wait_for(Option::is_some).await.ok();
    }
}

impl<C: fmt::Display, T> fmt::Display for Running<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.call)
    }
}

/// Counts one caller as waiting for as long as it lives.
pub(super) struct CallerGuard {
    callers: Arc<watch::Sender<Callers>>,
}

impl Drop for CallerGuard {
    fn drop(&mut self) {
        self.callers.send_modify(|callers| callers.waiting -= 1);
    }
}

/// Cancels the operation once nobody has waited for it for twice the time its callers gave.
async fn abandon(mut callers: watch::Receiver<Callers>, cancelled: CancellationToken) {
    loop {
        let patience = callers.borrow_and_update().longest * 2;
        if callers.wait_for(|callers| callers.waiting == 0).await.is_err() {
            return;
        }
        match tokio::time::timeout(patience, callers.wait_for(|callers| callers.waiting > 0)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return,
            Err(_) => return cancelled.cancel(),
        }
    }
}
