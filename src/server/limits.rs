//! What one process serves at the same time, and the calls that wait for none of it.
//!
//! A client may open any number of connections and calls, announce messages that it never sends, and send none of the
//! bytes that it owes. None of that may cost more than a known amount of memory, or last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::Status;

use super::arriving::Arriving;

/// The maximum length of a message in bytes. The fields of CSI have at most 4 KiB, so its requests have a few of them.
pub(super) const MESSAGE_BYTES: usize = 1 << 20;
/// Messages up to this length need no share of [`LARGE_MESSAGES`].
pub(super) const SMALL_MESSAGE: usize = 32 << 10;
/// The total length in bytes of the larger messages of all calls in progress. A decoded message may take forty times the
/// bytes that were sent.
const LARGE_MESSAGES: usize = 4 * MESSAGE_BYTES;
/// The total length in bytes of the larger answers that wait for their clients to read them. A page of a list has up to
/// 4 MiB.
const LARGE_ANSWERS: usize = 32 << 20;

/// How long a client may leave an answer unread. It then loses its connection: HTTP/2 knows no other way to stop waiting.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(60);
/// How many requests may be waited for; one more replaces the oldest.
const ARRIVING: usize = 2048;

/// How long a client may take for the bytes of a message, or between two messages.
pub(super) const MESSAGE_TIME: Duration = Duration::from_secs(10);
/// How long a client may take to begin with HTTP/2.
pub(super) const GREETING_TIME: Duration = Duration::from_secs(10);
/// How often a client is asked whether it still exists, and how long it may take to answer. A client that waits for work
/// answers without being aware of it; one whose machine is gone, or that has stopped in the middle of a header, cannot.
pub(super) const PING_EVERY: Duration = Duration::from_secs(60);
pub(super) const PING_TIME: Duration = Duration::from_secs(60);
/// How often refused calls are logged.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// The maximum length in bytes of the headers of a call.
pub(super) const HEADER_BYTES: u32 = 16 << 10;
/// How many bytes a client may send ahead of what a call has read; for all calls of its connection see
/// [`Limits::connection_window`].
pub(super) const WINDOW_BYTES: u32 = 256 << 10;
/// What the h2 crate (from 0.4.16) counts at most for a small frame of data that no call has read yet. It ends a connection
/// on which that exceeds half the window.
const SMALL_FRAME: u32 = 256;
/// How many refused streams a client may leave unread before its connection ends.
pub(super) const REFUSED_STREAMS: usize = 1024;

/// How many connections and calls a server has at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections; one more replaces the one that has been idle for longest, or waits if none is idle.
    pub connections: usize,
    /// Calls on all connections; one more is refused. One connection may have half of them.
    pub calls: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            calls: 2048,
        }
    }
}

impl Limits {
    /// Returns the number of calls that one connection may have.
    pub(super) fn calls_per_connection(self) -> u32 {
        u32::try_from(self.calls.div_ceil(2)).unwrap_or(u32::MAX)
    }

    /// Returns how many bytes a client may send ahead of what its calls have read, on one connection: enough for all calls
    /// that it may make at once, each with one small message.
    pub(super) fn connection_window(self) -> u32 {
        let frames = self.calls_per_connection().saturating_mul(SMALL_FRAME);
        let window = frames.saturating_mul(2).max(WINDOW_BYTES);
        // The maximum of HTTP/2.
        window.min(i32::MAX.unsigned_abs())
    }
}

/// What all calls of a server share. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct CallBudget {
    calls: Arc<Semaphore>,
    large_messages: Arc<Semaphore>,
    large_answers: Arc<Semaphore>,
    pub(super) arriving: Arriving,
    limit: usize,
    /// When a refused call was logged last.
    logged: Arc<Mutex<Option<Instant>>>,
}

impl CallBudget {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            calls: Arc::new(Semaphore::new(limits.calls)),
            large_messages: Arc::new(Semaphore::new(LARGE_MESSAGES)),
            large_answers: Arc::new(Semaphore::new(LARGE_ANSWERS)),
            arriving: Arriving::new(ARRIVING),
            limit: limits.calls,
            logged: Arc::default(),
        }
    }

    /// Logs that calls are refused, but not each of them.
    fn log_refusal(&self) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            *logged = Some(Instant::now());
            tracing::warn!(
                "{} calls are in progress; more are refused (max_calls)",
                self.limit
            );
        }
    }

    /// Returns the share of a call of which no message has arrived, which is none.
    pub(super) fn share(&self) -> CallShare {
        CallShare(Arc::new(Share {
            budget: self.clone(),
            permits: Mutex::default(),
        }))
    }
}

/// What one call has of the budget, returned when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct CallShare(Arc<Share>);

#[derive(Debug)]
struct Share {
    budget: CallBudget,
    permits: Mutex<Permits>,
}

#[derive(Debug, Default)]
struct Permits {
    call: Option<OwnedSemaphorePermit>,
    /// That of the last large message.
    large: Option<OwnedSemaphorePermit>,
    /// That of a large answer.
    answer: Option<OwnedSemaphorePermit>,
}

impl CallShare {
    pub(super) fn budget(&self) -> &CallBudget {
        &self.0.budget
    }

    /// Makes it the share of a call whose request has arrived, and that is in progress.
    ///
    /// # Errors
    /// As many calls as are allowed are in progress.
    pub(super) fn begin(&self) -> Result<(), Status> {
        let mut permits = self.lock();
        if permits.call.is_none() {
            let permit = Arc::clone(&self.0.budget.calls).try_acquire_owned();
            let refused = |_| {
                self.0.budget.log_refusal();
                Status::unavailable(format!(
                    "{} calls are in progress, which is all that this plugin serves at the same time (max_calls); call \
                     again",
                    self.0.budget.limit
                ))
            };
            permits.call = Some(permit.map_err(refused)?);
        }
        Ok(())
    }

    /// Waits for the share of a message of that many bytes, which lasts as long as the call.
    pub(super) async fn add_message(&self, bytes: usize) {
        if bytes <= SMALL_MESSAGE {
            return;
        }
        // The messages of one call follow each other.
        self.lock().large = None;
        let permits = u32::try_from(bytes.min(LARGE_MESSAGES)).unwrap_or(u32::MAX);
        let large_messages = Arc::clone(&self.0.budget.large_messages);
        // The semaphore is never closed, so there always is a permit.
        let permit = large_messages.acquire_many_owned(permits).await.ok();
        self.lock().large = permit;
    }

    /// Takes the share of an answer of that many bytes, which lasts as long as the call.
    ///
    /// # Errors
    /// The clients have left too much unread.
    pub(super) fn add_answer(&self, bytes: usize) -> Result<(), Status> {
        if bytes <= SMALL_MESSAGE {
            return Ok(());
        }
        let permits = u32::try_from(bytes.min(LARGE_ANSWERS)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.0.budget.large_answers).try_acquire_many_owned(permits);
        let refused = |_| {
            Status::unavailable(format!(
                "the answer has {bytes} bytes, and clients have left {} MiB of other answers unread, which is nearly all that \
                 this plugin keeps for them; call again",
                LARGE_ANSWERS.saturating_sub(self.0.budget.large_answers.available_permits()) >> 20
            ))
        };
        self.lock().answer = Some(permit.map_err(refused)?);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Permits> {
        self.0.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn the_window_of_a_connection_has_room_for_all_its_calls() {
        let of = |calls| {
            Limits {
                calls,
                ..Limits::default()
            }
            .connection_window()
        };
        assert_eq!([of(1), of(2048)], [WINDOW_BYTES, 512 << 10]);
        assert_eq!(of(usize::MAX), 0x7fff_ffff);
    }

    #[tokio::test]
    async fn a_call_above_the_limit_is_refused_until_another_ends() {
        let limits = Limits {
            calls: 2,
            ..Limits::default()
        };
        let budget = CallBudget::new(limits);
        let calls: Vec<_> = (0..3).map(|_| budget.share()).collect();
        for call in &calls[..2] {
            call.begin().unwrap();
            call.begin().unwrap();
        }
        let refused = calls[2].begin().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        assert!(
            refused.message().starts_with("2 calls are in progress"),
            "{refused}"
        );
        let clone = calls[0].clone();
        drop(calls);
        let [next, last] = [budget.share(), budget.share()];
        next.begin().unwrap();
        last.begin().unwrap_err();
        drop(clone);
        last.begin().unwrap();
    }

    #[tokio::test]
    async fn large_messages_share_a_budget_for_as_long_as_their_calls_last() {
        let budget = CallBudget::new(Limits::default());
        let calls: Vec<_> = (0..5).map(|_| budget.share()).collect();
        for call in &calls[..4] {
            assert!(call.add_message(MESSAGE_BYTES).now_or_never().is_some());
        }
        assert!(calls[4].add_message(SMALL_MESSAGE + 1).now_or_never().is_none());
        assert!(calls[4].add_message(SMALL_MESSAGE).now_or_never().is_some());
        assert!(
            calls[0].add_message(MESSAGE_BYTES).now_or_never().is_some(),
            "its next one"
        );
        drop(calls);
        let call = budget.share();
        assert!(call.add_message(4 * MESSAGE_BYTES).now_or_never().is_some());
    }

    #[tokio::test]
    async fn large_answers_share_a_budget_until_they_are_sent() {
        let budget = CallBudget::new(Limits::default());
        let calls: Vec<_> = (0..9).map(|_| budget.share()).collect();
        for call in &calls[..8] {
            call.add_answer(LARGE_ANSWERS / 8).unwrap();
        }
        let refused = calls[8].add_answer(SMALL_MESSAGE + 1).unwrap_err();
        assert!(refused.message().contains("32 MiB of other answers"), "{refused}");
        calls[8].add_answer(SMALL_MESSAGE).unwrap();
        drop(calls);
        budget.share().add_answer(LARGE_ANSWERS).unwrap();
    }
}
