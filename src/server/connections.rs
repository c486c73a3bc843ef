//! The open connections of a server, of which there is a limited number.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::limits::ANSWER_TIME;

/// For how many calls of a connection room is kept while there are none.
const FEW_CALLS: usize = 16;

/// The connections of one server. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    open: Mutex<Open>,
    /// Notified when a connection has ended or become idle.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    connections: HashMap<u64, State>,
    next: u64,
}

/// What decides which connection makes room for another.
#[derive(Debug)]
struct State {
    /// The calls in progress, with the time since when their answers wait for the client to read them.
    calls: HashMap<u64, Option<Instant>>,
    next_call: u64,
    /// Whether a call has ever been made on it.
    is_used: bool,
    idle_since: Instant,
    close: CancellationToken,
}

impl Connections {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                limit: limit.max(1),
                open: Mutex::default(),
                changed: Notify::new(),
            }),
        }
    }

    /// Adds a connection, which ends when `close` is cancelled.
    ///
    /// Above the limit it replaces an idle connection: one on which no call was ever made before others, and the one that
    /// has been idle for longest before others. Without an idle one it waits.
    pub(super) async fn add(&self, close: CancellationToken) -> ConnectionUse {
        loop {
            // Registered before the check, so that no change in between is missed.
            let changed = self.shared.changed.notified();
            if let Some(added) = self.try_add(&close) {
                return added;
            }
            changed.await;
        }
    }

    fn try_add(&self, close: &CancellationToken) -> Option<ConnectionUse> {
        let mut open = self.shared.lock();
        if open.connections.len() >= self.shared.limit {
            let idle = open
                .connections
                .iter()
                .filter(|(_, state)| state.calls.is_empty());
            let (id, _) = idle.min_by_key(|(_, state)| (state.is_used, state.idle_since))?;
            let id = *id;
            if let Some(replaced) = open.connections.remove(&id) {
                replaced.close.cancel();
                tracing::debug!(
                    "An idle connection makes room for another: {} are open, the maximum (max_connections)",
                    self.shared.limit
                );
            }
        }
        let id = open.next;
        open.next += 1;
        let state = State {
            calls: HashMap::new(),
            next_call: 0,
            is_used: false,
            idle_since: Instant::now(),
            close: close.clone(),
        };
        open.connections.insert(id, state);
        Some(ConnectionUse(Arc::new(Entry {
            shared: Arc::clone(&self.shared),
            id,
        })))
    }
}

impl Connections {
    /// Closes, until it is dropped, the connections of clients that leave an answer unread for [`ANSWER_TIME`].
    pub(super) async fn close_stalled(&self) -> Infallible {
        let mut ticks = interval(ANSWER_TIME / 6);
        loop {
            ticks.tick().await;
            self.shared.lock().connections.retain(|_, state| {
                let mut unread = state.calls.values().flatten();
                let is_stalled = unread.any(|since| since.elapsed() >= ANSWER_TIME);
                if is_stalled {
                    tracing::warn!(
                        "A client has not read an answer for {ANSWER_TIME:?}; its connection is closed"
                    );
                    state.close.cancel();
                }
                !is_stalled
            });
            self.shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open connection, until the last clone is dropped. Its calls find it among the extensions of their requests.
#[derive(Clone, Debug)]
pub(super) struct ConnectionUse(Arc<Entry>);

#[derive(Debug)]
struct Entry {
    shared: Arc<Shared>,
    id: u64,
}

impl ConnectionUse {
    /// Makes the connection busy until the value is dropped.
    pub(super) fn begin_call(&self) -> CallOnConnection {
        let mut number = 0;
        if let Some(state) = self.0.shared.lock().connections.get_mut(&self.0.id) {
            number = state.next_call;
            state.next_call += 1;
            state.calls.insert(number, None);
            state.is_used = true;
        }
        CallOnConnection {
            connection: self.clone(),
            number,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.lock().connections.remove(&self.id);
        self.shared.changed.notify_one();
    }
}

/// A call in progress.
#[derive(Debug)]
pub(super) struct CallOnConnection {
    connection: ConnectionUse,
    number: u64,
}

impl CallOnConnection {
    /// Records whether its answer waits for the client to read it.
    pub(super) fn set_unread(&self, unread: bool) {
        let Entry { shared, id } = &*self.connection.0;
        if let Some(state) = shared.lock().connections.get_mut(id)
            && let Some(since) = state.calls.get_mut(&self.number)
        {
            *since = unread.then(Instant::now);
        }
    }
}

impl Drop for CallOnConnection {
    fn drop(&mut self) {
        let Entry { shared, id } = &*self.connection.0;
        if let Some(state) = shared.lock().connections.get_mut(id) {
            state.calls.remove(&self.number);
            if state.calls.is_empty() {
                state.calls.shrink_to(FEW_CALLS);
            }
            state.idle_since = Instant::now();
        }
        shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    async fn add(connections: &Connections) -> (CancellationToken, ConnectionUse) {
        tokio::time::advance(Duration::from_secs(1)).await;
        let close = CancellationToken::new();
        let added = connections.add(close.clone()).now_or_never();
        (close, added.expect("there is room"))
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_was_idle_for_longest_makes_room_and_an_unused_one_before_it() {
        let connections = Connections::new(3);
        let (first_close, first) = add(&connections).await;
        let (second_close, second) = add(&connections).await;
        let (unused_close, _unused) = add(&connections).await;
        drop(second.begin_call());
        drop(first.begin_call());
        let (_, fourth) = add(&connections).await;
        assert!(unused_close.is_cancelled() && !first_close.is_cancelled() && !second_close.is_cancelled());
        let _busy = fourth.begin_call();
        let (fifth_close, fifth) = add(&connections).await;
        assert!(second_close.is_cancelled() || first_close.is_cancelled());
        let _busy_too = fifth.begin_call();
        let (_, _sixth) = add(&connections).await;
        assert!(first_close.is_cancelled() && second_close.is_cancelled() && !fifth_close.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_an_answer_unread_loses_its_connection() {
        let connections = Connections::new(3);
        let (stalled_close, stalled) = add(&connections).await;
        let (reading_close, reading) = add(&connections).await;
        let (waiting_close, waiting) = add(&connections).await;
        let calls = [stalled.begin_call(), reading.begin_call(), waiting.begin_call()];
        calls[0].set_unread(true);
        calls[1].set_unread(true);
        calls[1].set_unread(false);
        tokio::time::timeout(2 * ANSWER_TIME, connections.close_stalled())
            .await
            .unwrap_err();
        assert!(stalled_close.is_cancelled());
        assert!(!reading_close.is_cancelled() && !waiting_close.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_waits_as_long_as_all_are_busy() {
        let connections = Connections::new(1);
        let (close, busy) = add(&connections).await;
        let calls = [busy.begin_call(), busy.begin_call()];
        let waiting = connections.add(CancellationToken::new());
        let mut waiting = std::pin::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        let [one, other] = calls;
        drop(one);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(other);
        let added = waiting.as_mut().now_or_never();
        assert!(added.is_some() && close.is_cancelled());

        let ended = added;
        drop(ended);
        assert!(!add(&connections).await.0.is_cancelled(), "there is room again");
    }
}
