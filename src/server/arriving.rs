//! The requests that have not arrived in full, of which there is a limited number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The requests of one server that have not arrived in full. Clones share them.
///
/// One more than the limit replaces the oldest: a client that means to call sends all of its request at once, so the
/// oldest is the likeliest not to arrive.
#[derive(Clone, Debug)]
pub(super) struct Arriving {
    limit: usize,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_age: BTreeMap<u64, CancellationToken>,
    next: u64,
}

impl Arriving {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            waiting: Arc::default(),
        }
    }

    /// Adds a request.
    pub(super) fn add(&self) -> ArrivingRequest {
        let replaced = CancellationToken::new();
        let mut waiting = self.lock();
        if waiting.by_age.len() >= self.limit
            && let Some((_, oldest)) = waiting.by_age.pop_first()
        {
            oldest.cancel();
        }
        let id = waiting.next;
        waiting.next += 1;
        waiting.by_age.insert(id, replaced.clone());
        ArrivingRequest {
            arriving: self.clone(),
            id,
            replaced,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has not arrived in full, until it is dropped.
#[derive(Debug)]
pub(super) struct ArrivingRequest {
    arriving: Arriving,
    id: u64,
    replaced: CancellationToken,
}

impl ArrivingRequest {
    /// Waits until another request replaces this one.
    pub(super) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl Drop for ArrivingRequest {
    fn drop(&mut self) {
        self.arriving.lock().by_age.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_request_too_many_replaces_the_oldest() {
        let arriving = Arriving::new(2);
        let [first, second] = [arriving.add(), arriving.add()];
        let third = arriving.add();
        assert!(first.replaced().now_or_never().is_some());
        assert!(second.replaced().now_or_never().is_none());
        drop((first, third));
        let _fourth = arriving.add();
        assert!(second.replaced().now_or_never().is_none(), "there is room");
    }
}
