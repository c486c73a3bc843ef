//! Limits how many requests of a client run at the same time, and with them how many connections it makes.
//!
//! Each new connection costs the control service a signature with a 4096-bit key: 14 ms of the one core that serves
//! the whole cluster. So a request waits for a permit rather than make a connection of its own.

use tokio::sync::{Semaphore, SemaphorePermit};

/// The number of concurrent writes. With a single one, the control service would be idle while an answer travels.
const WRITES: usize = 3;
/// The number of concurrent reads: one for the lists, which are slow, and one for every other read.
const READS: usize = 2;
/// The number of concurrent requests.
pub(crate) const TOTAL: usize = WRITES + READS;

/// The permits for requests, granted in the order of asking. Reads and writes have their own: every operation waits
/// for lists, and a thousand queued writes must not delay them.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    reads: Semaphore,
    writes: Semaphore,
}

impl ConnectionLimit {
    pub(crate) fn new() -> Self {
        Self {
            reads: Semaphore::new(READS),
            writes: Semaphore::new(WRITES),
        }
    }

    /// Waits for a permit, which is returned when the value is dropped.
    pub(crate) async fn acquire(&self, write: bool) -> Option<SemaphorePermit<'_>> {
        let permits = if write { &self.writes } else { &self.reads };
        // The semaphores are never closed, so there always is a permit.
        permits.acquire().await.ok()
    }
}
