//! Counts of requests and connections, which show tests and benchmarks what a client sends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counts of requests and connections since the start, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Number of answers, by request and status.
    pub requests: BTreeMap<RequestKey, u64>,
    /// Number of TCP connections accepted, whether or not their TLS handshake succeeded.
    pub connections: u64,
    /// Number of connections that are open.
    pub open_connections: u64,
    /// The largest number of connections that were open at one time.
    pub most_connections: u64,
    /// The largest number of requests that were in progress at one time.
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

    /// Returns how often `method` on `route` was answered, with any status.
    pub fn asked(&self, method: &str, route: &str) -> u64 {
        self.requests
            .iter()
            .filter(|(key, _)| key.method == method && key.route == route)
            .map(|(_, count)| count)
            .sum()
    }
}

/// A kind of request, and the status it was answered with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct RequestKey {
    /// The HTTP method.
    pub method: String,
    /// The template of the route, such as `/v1/configuration/datasets/{dataset_id}`; `unknown` for no route.
    pub route: String,
    /// The HTTP status of the answer; 0 where a fault has closed the connection instead of answering.
    pub status: u16,
}

/// The counters, shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<RequestKey, u64>,
    connections: Gauge,
    in_progress: Gauge,
}

/// How many of something exist, and have existed.
#[derive(Debug, Default)]
struct Gauge {
    total: u64,
    current: u64,
    maximum: u64,
}

/// Counts as one that exists until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    counting: Arc<Counting>,
    gauge: fn(&mut Counts) -> &mut Gauge,
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&mut self.counting.lock()).current -= 1;
    }
}

impl Counting {
    /// Counts a connection, which is open as long as the result exists.
    pub(crate) fn connection(self: &Arc<Self>) -> Counted {
        self.count(|counts| &mut counts.connections)
    }

    /// Counts a request, which is in progress as long as the result exists.
    pub(crate) fn request(self: &Arc<Self>) -> Counted {
        self.count(|counts| &mut counts.in_progress)
    }

    pub(crate) fn answer(&self, key: RequestKey) {
        *self.lock().requests.entry(key).or_default() += 1;
    }

    pub(crate) fn snapshot(&self) -> Counters {
        let counts = self.lock();
        Counters {
            requests: counts.requests.clone(),
            connections: counts.connections.total,
            open_connections: counts.connections.current,
            most_connections: counts.connections.maximum,
            most_requests: counts.in_progress.maximum,
        }
    }

    fn count(self: &Arc<Self>, gauge: fn(&mut Counts) -> &mut Gauge) -> Counted {
        let mut counts = self.lock();
        let reached = gauge(&mut counts);
        reached.total += 1;
        reached.current += 1;
        reached.maximum = reached.maximum.max(reached.current);
        Counted {
            counting: Arc::clone(self),
            gauge,
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
    fn answers_are_counted_by_method_and_status() {
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
    fn what_has_ended_counts_for_the_maximum_but_not_as_current() {
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
