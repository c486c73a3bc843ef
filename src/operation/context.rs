//! What a running operation knows about those who wait for it.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::callers::{Callers, reached};
use super::progress::{Phase, Progress};
use crate::error::{Error, Result, Situation};

/// An operation's view of its callers: it tells them its phase, and learns whether they still want it.
#[derive(Clone)]
pub struct Context {
    doing: Arc<str>,
    progress: Arc<watch::Sender<Progress>>,
    callers: watch::Receiver<Callers>,
    cancelled: CancellationToken,
}

impl Context {
    pub(super) fn new(
        doing: String,
        progress: Arc<watch::Sender<Progress>>,
        callers: watch::Receiver<Callers>,
        cancelled: CancellationToken,
    ) -> Self {
        Self {
            doing: doing.into(),
            progress,
            callers,
            cancelled,
        }
    }

    /// Says what the operation waits for from this moment on. The same phase again keeps its start.
    pub fn enter(&self, phase: Phase) {
        self.progress.send_if_modified(|progress| progress.enter(phase));
    }

    /// Returns what the operation waits for.
    pub fn phase(&self) -> Phase {
        self.progress.borrow().phase.clone()
    }

    /// Says which dataset the operation works on, once that is known.
    pub fn about(&self, dataset: Uuid) {
        self.progress
            .send_modify(|progress| progress.dataset = Some(dataset));
    }

    /// Waits for `future` unless the operation is cancelled first.
    ///
    /// Only for waiting: the future is dropped when the operation is cancelled.
    ///
    /// # Errors
    /// [`Situation::Cancelled`].
    pub async fn unless_cancelled<F: Future>(&self, future: F) -> Result<F::Output> {
        tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Err(self.cancelled_error()),
            output = future => Ok(output),
        }
    }

    /// Checks that the operation is still wanted, before a step that should not be begun in vain.
    ///
    /// # Errors
    /// [`Situation::Cancelled`].
    pub fn check(&self) -> Result<()> {
        if self.cancelled.is_cancelled() {
            Err(self.cancelled_error())
        } else {
            Ok(())
        }
    }

    /// Waits until somebody waits for this operation: a mount is begun for nobody else.
    ///
    /// # Errors
    /// [`Situation::Cancelled`].
    pub async fn caller_waiting(&self) -> Result<()> {
        let mut callers = self.callers.clone();
        if !callers.borrow_and_update().any() {
            self.enter(Phase::Caller);
        }
        self.unless_cancelled(async move { callers.wait_for(Callers::any).await.is_ok() })
            .await?;
        Ok(())
    }

    /// Waits until every caller there has been is about to be answered.
    ///
    /// For work that is better refused than finished after its callers have gone: it ends with a final error, and has
    /// a moment left to undo what it has done.
    pub async fn out_of_time(&self) {
        reached(self.callers.clone(), |callers| Some(callers.give_up_by())).await;
    }

    /// Whether somebody waits for this operation at this moment and nobody has cancelled it.
    pub fn is_wanted(&self) -> bool {
        !self.cancelled.is_cancelled() && self.callers.borrow().any()
    }

    fn cancelled_error(&self) -> Error {
        Error::new(
            Situation::Cancelled,
            format!(
                "{}: ended by the opposite call, by a stop of the plugin, or because nobody asked any more",
                self.doing
            ),
        )
    }
}
