//! What an operation knows about its callers.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::deadline::Deadline;

/// The callers that wait for an operation, and those that did.
#[derive(Clone, Copy)]
pub(super) struct Callers {
    /// How many wait at this moment.
    waiting: usize,
    /// The longest time that any caller has allowed so far.
    longest: Duration,
    /// When the newest change of `waiting` was.
    changed: Instant,
    /// When the last answer is due, less the time for undoing.
    stop_work_by: Instant,
}

impl Callers {
    /// Returns the state of an operation that one caller waits for.
    pub(super) fn one(deadline: Deadline) -> Self {
        Self {
            waiting: 1,
            longest: deadline.budget(),
            changed: Instant::now(),
            stop_work_by: deadline.stop_work_by(),
        }
    }

    /// Counts another caller.
    pub(super) fn add(&mut self, deadline: Deadline) {
        self.waiting += 1;
        self.longest = self.longest.max(deadline.budget());
        self.changed = Instant::now();
        self.stop_work_by = self.stop_work_by.max(deadline.stop_work_by());
    }

    /// Stops counting a caller.
    pub(super) fn remove(&mut self) {
        self.waiting -= 1;
        self.changed = Instant::now();
    }

    /// Whether any caller waits at this moment.
    pub(super) fn any(&self) -> bool {
        self.waiting > 0
    }

    /// Returns when the operation is abandoned if no caller comes: after twice the longest time that any has allowed.
    pub(super) fn abandoned_at(&self) -> Option<Instant> {
        (self.waiting == 0).then(|| self.changed + self.longest * 2)
    }

    /// Returns when work that ends with its callers has to stop: shortly before the last of them is answered.
    pub(super) fn stop_work_by(&self) -> Instant {
        self.stop_work_by
    }
}

/// Waits until the moment that `moment` derives from the callers.
///
/// Each change of the callers is taken into account at once. A moment that was read before a wait says nothing after it.
pub(super) async fn reached(
    mut callers: watch::Receiver<Callers>,
    moment: impl Fn(&Callers) -> Option<Instant>,
) {
    loop {
        let next = moment(&callers.borrow_and_update());
        let changed = match next {
            Some(next) => match timeout_at(next, callers.changed()).await {
                Ok(changed) => changed,
                Err(_elapsed) => return,
            },
            None => callers.changed().await,
        };
        // The operation has ended, and its callers change no more.
        if changed.is_err() {
            return match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            };
        }
    }
}
