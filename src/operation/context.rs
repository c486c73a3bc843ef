//! An operation's view of its callers.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::callers::{Callers, reached};
use super::phase::Phase;
use super::progress::OperationProgress;
use crate::error::{Error, Result, Situation};
use crate::telemetry::{EndedPhase, Metrics, Trace};
use crate::volume::VolumeLabels;

/// Measures how long an operation is in each of its phases.
#[derive(Clone)]
pub(super) struct PhaseTimes {
    pub(super) operation: &'static str,
    pub(super) id: u64,
    pub(super) metrics: Metrics,
    /// The call that began the operation.
    pub(super) trace: Trace,
}

impl PhaseTimes {
    /// Records that the operation leaves its phase now.
    fn left(&self, progress: &OperationProgress) {
        self.ended(progress, None);
    }

    /// Records that the operation ends in its phase, by `error` if there is one.
    pub(super) fn ended(&self, progress: &OperationProgress, error: Option<&Error>) {
        let (phase, took) = (progress.phase.name(), progress.entered.elapsed());
        self.metrics.phase_left(self.operation, phase, took);
        if let Some(traces) = self.metrics.traces() {
            let ended = EndedPhase {
                operation: self.operation,
                operation_id: self.id,
                phase,
                dataset: progress.dataset,
                took,
            };
            traces.phase(&self.trace, &ended, error.map(Error::chain).as_deref());
        }
    }
}

/// Through this an operation reports its phase, and learns whether a caller still waits for it.
#[derive(Clone)]
pub(crate) struct Context {
    doing: Arc<str>,
    times: PhaseTimes,
    progress: Arc<watch::Sender<OperationProgress>>,
    callers: watch::Receiver<Callers>,
    cancelled: CancellationToken,
}

impl Context {
    pub(super) fn new(
        doing: String,
        times: PhaseTimes,
        progress: Arc<watch::Sender<OperationProgress>>,
        callers: watch::Receiver<Callers>,
        cancelled: CancellationToken,
    ) -> Self {
        Self {
            doing: doing.into(),
            times,
            progress,
            callers,
            cancelled,
        }
    }

    /// Records what the operation waits for from this moment on. Entering the same phase again keeps its start.
    pub(crate) fn enter(&self, phase: Phase) {
        self.progress.send_if_modified(|progress| {
            let before = progress.clone();
            let entered = progress.enter(phase);
            if entered {
                self.times.left(&before);
                tracing::debug!(phase = progress.phase.name(), "Now {}", progress.phase);
            }
            entered
        });
    }

    /// Waits for `step` to its end, in a phase of its own; afterwards the operation is in the phase before it again.
    pub(crate) async fn during<F: Future>(&self, phase: Phase, step: F) -> F::Output {
        let before = self.phase();
        self.enter(phase);
        let output = step.await;
        self.enter(before);
        output
    }

    /// Returns what the operation waits for.
    pub(crate) fn phase(&self) -> Phase {
        self.progress.borrow().phase.clone()
    }

    /// Records which dataset the operation works on, once that is known.
    pub(crate) fn about(&self, dataset: Uuid) {
        self.progress
            .send_modify(|progress| progress.dataset = Some(dataset));
    }

    /// Records what people call the volume, once that is known, for the log of the operation and of its calls.
    pub(crate) fn called(&self, labels: VolumeLabels) {
        labels.record_in(&tracing::Span::current());
        self.progress
            .send_modify(|progress| progress.labels = Some(labels.into()));
    }

    /// Returns what people call the volume, if it is known.
    pub(crate) fn labels(&self) -> Option<Arc<VolumeLabels>> {
        self.progress.borrow().labels.clone()
    }

    /// Returns the dataset that the operation works on while it is not known what people call it.
    pub(crate) fn nameless(&self) -> Option<Uuid> {
        let progress = self.progress.borrow();
        progress.dataset.filter(|_| progress.labels.is_none())
    }

    /// Waits for `future` unless the operation is cancelled first.
    ///
    /// Only for waiting: the future is dropped when the operation is cancelled.
    ///
    /// # Errors
    /// [`Situation::Cancelled`].
    pub(crate) async fn unless_cancelled<F: Future>(&self, future: F) -> Result<F::Output> {
        tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Err(self.cancelled_error()),
            output = future => Ok(output),
        }
    }

    /// Checks that the operation is not cancelled, before a step that would be in vain then.
    ///
    /// # Errors
    /// [`Situation::Cancelled`].
    pub(crate) fn check(&self) -> Result<()> {
        if self.cancelled.is_cancelled() {
            Err(self.cancelled_error())
        } else {
            Ok(())
        }
    }

    /// Waits until a caller waits for this operation: without one, nothing is mounted.
    ///
    /// # Errors
    /// [`Situation::Cancelled`].
    pub(crate) async fn caller_waiting(&self) -> Result<()> {
        let mut callers = self.callers.clone();
        if !callers.borrow_and_update().any() {
            self.enter(Phase::Caller);
        }
        self.unless_cancelled(async move { callers.wait_for(Callers::any).await.is_ok() })
            .await?;
        Ok(())
    }

    /// Waits until shortly before the last of all callers so far is answered.
    ///
    /// For work that is better refused than finished without its callers: it ends with a final error, and the time left
    /// is for undoing what it has done.
    pub(crate) async fn out_of_time(&self) {
        reached(self.callers.clone(), |callers| Some(callers.stop_work_by())).await;
    }

    /// Whether a caller waits for this operation at this moment and nothing has cancelled it.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.cancelled.is_cancelled() && self.callers.borrow().any()
    }

    fn cancelled_error(&self) -> Error {
        Error::new(
            Situation::Cancelled,
            format!(
                "{}: ended by the inverse call, by a stop of the plugin, or because no call waited for it any more",
                self.doing
            ),
        )
    }
}
