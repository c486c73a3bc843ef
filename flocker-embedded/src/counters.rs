//! Counts of what clients asked for, so that tests and benchmarks can tell what a client really sends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A snapshot of what has been asked of the REST API since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Number of answers, by what was asked and how it was answered.
    pub requests: BTreeMap<RequestKey, u64>,
    /// Number of TCP connections accepted, whether or not their TLS handshake succeeded.
    pub connections: u64,
    /// Number of connections that are open at this moment.
    pub open_connections: u64,
    /// The most connections that were ever open at one time.
    pub most_connections: u64,
    /// The most requests that were ever under way at one time.
    pub most_requests: u64,
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
    /// The HTTP status of the answer; 0 where a fault has closed the connection instead of answering.
    pub status: u16,
}

/// The counters themselves, shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<RequestKey, u64>,
    connections: Level,
    under_way: Level,
}

/// How many there are of something that comes and goes.
#[derive(Debug, Default)]
struct Level {
    ever: u64,
    now: u64,
    most: u64,
}

/// Something that counts as being there until this is dropped.
#[derive(Debug)]
pub(crate) struct Presence {
    counting: Arc<Counting>,
    level: fn(&mut Counts) -> &mut Level,
}

impl Drop for Presence {
    fn drop(&mut self) {
        (self.level)(&mut self.counting.lock()).now -= 1;
    }
}

impl Counting {
    /// Counts a connection, which is open as long as the result lives.
    pub(crate) fn connection(self: &Arc<Self>) -> Presence {
        self.presence(|counts| &mut counts.connections)
    }

    /// Counts a request as under way as long as the result lives.
    pub(crate) fn request(self: &Arc<Self>) -> Presence {
        self.presence(|counts| &mut counts.under_way)
    }

    pub(crate) fn answer(&self, key: RequestKey) {
        *self.lock().requests.entry(key).or_default() += 1;
    }

    pub(crate) fn snapshot(&self) -> Counters {
        let counts = self.lock();
        Counters {
            requests: counts.requests.clone(),
            connections: counts.connections.ever,
            open_connections: counts.connections.now,
            most_connections: counts.connections.most,
            most_requests: counts.under_way.most,
        }
    }

    fn presence(self: &Arc<Self>, level: fn(&mut Counts) -> &mut Level) -> Presence {
        let mut counts = self.lock();
        let reached = level(&mut counts);
        reached.ever += 1;
        reached.now += 1;
        reached.most = reached.most.max(reached.now);
        Presence {
            counting: Arc::clone(self),
            level,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn what_has_ended_counts_for_the_most_but_not_for_now() {
        let counting = Arc::new(Counting::default());
        let (first, second) = (counting.connection(), counting.connection());
        drop((first, second));
        let _third = counting.connection();
        let counters = counting.snapshot();
        assert_eq!(
            (
                counters.connections,
                counters.open_connections,
                counters.most_connections
            ),
            (3, 1, 2)
        );
        drop(counting.request());
        assert_eq!(counting.snapshot().most_requests, 1);
    }
}
