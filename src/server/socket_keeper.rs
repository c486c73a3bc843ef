//! Keeps a server reachable whose socket another process removes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::socket::SocketName;
use crate::config::Endpoint;

/// How often to check that the socket still exists.
///
/// A check is one system call. A watch by inotify would have to cover the parent directories too, because the removal of
/// the directory removes its watch.
pub(crate) const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Whether clients find the socket of a server; clones share it.
#[derive(Clone, Debug, Default)]
pub struct SocketState(Arc<Mutex<Option<String>>>);

impl SocketState {
    /// Returns why clients do not find the socket, in one line.
    pub(crate) fn fault(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the state, and returns whether it differs from the one before.
    fn set(&self, fault: Option<String>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let differs = *state != fault;
        *state = fault;
        differs
    }
}

/// Decides when the socket of a listener has to be recreated, and says what came of it.
#[derive(Debug)]
pub(super) struct SocketKeeper {
    state: SocketState,
    ticks: Interval,
}

impl SocketKeeper {
    pub(super) fn new(state: SocketState) -> Self {
        let mut ticks = interval(CHECK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { state, ticks }
    }

    /// Waits until the next check is due.
    pub(super) async fn due(&mut self) {
        self.ticks.tick().await;
    }

    /// Whether another process has removed the socket, or replaced it.
    pub(super) fn is_removed(&self, name: Option<&SocketName>) -> bool {
        let is_removed = name.is_some_and(|name| !name.is_in_place());
        if !is_removed {
            self.state.set(None);
        }
        is_removed
    }

    pub(super) fn recreated(&self, endpoint: &Endpoint) {
        self.state.set(None);
        tracing::warn!(
            %endpoint,
            "Another process had removed {endpoint}; it is recreated, and clients reach the plugin again"
        );
    }

    /// Logs a problem once.
    pub(super) fn not_recreated(&self, endpoint: &Endpoint, problem: &str) {
        let fault = format!("{endpoint} was removed and cannot be recreated: {problem}");
        if self.state.set(Some(fault)) {
            tracing::error!(
                %endpoint,
                error = problem,
                "Another process has removed {endpoint}, and it cannot be recreated, so no client reaches the plugin"
            );
        }
    }
}
