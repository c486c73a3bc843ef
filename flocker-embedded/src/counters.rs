//! Counts of what clients asked for, so that tests and benchmarks can tell what a client really sends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A snapshot of what has been asked of the REST API since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Number of answers, by what was asked and how it was answered.
    pub requests: BTreeMap<RequestKey, u64>,
    /// Number of TCP connections accepted, whether or not their TLS handshake succeeded.
    pub connections: u64,
}

impl Counters {
    /// Returns how often `method` on `route` was answered with `status`.
    pub fn answered(&self, method: &str, route: &str, status: u16) -> u64 {
        self.requests
            .iter()
            .filter(|(key, _)| key.method == method && key.route == route && key.status == status)
            .map(|(_, count)| count)
            .sum()
    }

    /// Returns how often `method` on `route` was answered at all.
    pub fn asked(&self, method: &str, route: &str) -> u64 {
        self.requests
            .iter()
            .filter(|(key, _)| key.method == method && key.route == route)
            .map(|(_, count)| count)
            .sum()
    }
}

/// What was asked and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKey {
    /// The HTTP method.
    pub method: String,
    /// The template of the route, such as `/v1/configuration/datasets/{dataset_id}`; `unknown` for no route.
    pub route: String,
    /// The HTTP status of the answer.
    pub status: u16,
}

/// The counters themselves, shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    requests: Mutex<BTreeMap<RequestKey, u64>>,
    connections: AtomicU64,
}

impl Counting {
    pub(crate) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn answer(&self, key: RequestKey) {
        *self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default() += 1;
    }

    pub(crate) fn snapshot(&self) -> Counters {
        Counters {
            requests: self
                .requests
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            connections: self.connections.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(method: &str, status: u16) -> RequestKey {
        RequestKey {
            method: method.to_owned(),
            route: "/v1/version".to_owned(),
            status,
        }
    }

    #[test]
    fn answers_are_told_apart_by_method_and_status() {
        let counting = Counting::default();
        counting.answer(key("GET", 200));
        counting.answer(key("GET", 200));
        counting.answer(key("GET", 404));
        counting.answer(key("POST", 200));

        let counters = counting.snapshot();
        assert_eq!(counters.answered("GET", "/v1/version", 200), 2);
        assert_eq!(counters.asked("GET", "/v1/version"), 3);
        assert_eq!(counters.asked("GET", "/v1/other"), 0);
    }
}
