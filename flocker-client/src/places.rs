//! How many requests of a client are under way at once, and with them how many connections it makes.
//!
//! Each new connection costs the control service a signature with a 4096-bit key, 14 ms of the one core that serves
//! the whole cluster. So requests wait for a place rather than connect.

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many requests that change something are under way at once. With one only, the control service would have
/// nothing to do while an answer travels.
const WRITES: usize = 3;
/// How many requests that only read are: one for the lists, which take long, and one for anything else.
const READS: usize = 2;
/// How many requests are under way at once.
pub(crate) const ALL: usize = WRITES + READS;

/// The places for requests. They are taken in the order of asking, those that read apart from those that write: lists
/// are what everybody waits for, and a thousand writes must not hold them up.
#[derive(Debug)]
pub(crate) struct Places {
    reads: Semaphore,
    writes: Semaphore,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self {
            reads: Semaphore::new(READS),
            writes: Semaphore::new(WRITES),
        }
    }

    /// Waits for a place, which is free again when the returned value is dropped.
    pub(crate) async fn take(&self, write: bool) -> Option<SemaphorePermit<'_>> {
        let places = if write { &self.writes } else { &self.reads };
        // The places are never closed, so there always is a permit.
        places.acquire().await.ok()
    }
}
