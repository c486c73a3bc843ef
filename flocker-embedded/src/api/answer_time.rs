//! How long the control service takes to answer with a list, where the timing is Flocker's own.
//!
//! It is one Python process, so its processor time is spent on one request after the other. Measured on a real cluster
//! without load: 14 to 20 ms for a short list, of which about 3 ms are processor time, and 20 ms more processor time for
//! every 1,000 entries.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Mutex;
use tokio::time::{Duration, sleep};

use super::context::Api;
use super::extensions::knows_tombstones;
use crate::Timing;
use crate::routes::{DATASET_STATES, DATASETS, LEASES, NODES};

/// The time of an answer that no other request is held up by.
const BASE: Duration = Duration::from_millis(11);
/// The processor time of an answer with an empty list.
const PROCESSING: Duration = Duration::from_millis(3);
/// The processor time of an entry.
const ENTRY: Duration = Duration::from_micros(20);

/// The time that answers take.
#[derive(Debug)]
pub(crate) struct AnswerTime {
    timing: Timing,
    processor: Mutex<()>,
}

impl AnswerTime {
    pub(crate) fn new(timing: Timing) -> Self {
        Self {
            timing,
            processor: Mutex::new(()),
        }
    }

    /// Waits as long as an answer with that many entries takes.
    async fn pass(&self, entries: usize) {
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        let Some(processing) = self.timing.of_stock(PROCESSING + ENTRY * entries) else {
            return;
        };
        if let Some(base) = self.timing.of_stock(BASE) {
            sleep(base).await;
        }
        let _processor = self.processor.lock().await;
        sleep(processing).await;
    }
}

/// Delays answers with lists.
pub(super) async fn delay(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if let Some(entries) = route
        .filter(|_| request.method() == Method::GET)
        .and_then(|route| entries(&api, route, request.headers()))
    {
        api.answer_time.pass(entries).await;
    }
    next.run(request).await
}

/// Returns the number of entries of the list at `route`, if it has one.
fn entries(api: &Api, route: &str, headers: &HeaderMap) -> Option<usize> {
    let configuration = || api.store.snapshot();
    match route {
        DATASETS if knows_tombstones(headers) => Some(configuration().configuration.datasets.len()),
        DATASETS => usize::try_from(configuration().datasets).ok(),
        LEASES => Some(configuration().configuration.leases.len()),
        DATASET_STATES => Some(api.cluster.datasets().len()),
        NODES => Some(api.nodes.len()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;

    async fn time_of(timing: Timing, requests: usize, entries: usize) -> u128 {
        let answer_time = Arc::new(AnswerTime::new(timing));
        let began = Instant::now();
        let mut answers = JoinSet::new();
        for _ in 0..requests {
            let answer_time = Arc::clone(&answer_time);
            answers.spawn(async move { answer_time.pass(entries).await });
        }
        answers.join_all().await;
        began.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn lists_take_as_long_as_on_a_real_cluster_and_longer_with_their_entries() {
        assert!((14..=16).contains(&time_of(Timing::Stock, 1, 0).await));
        assert!((34..=36).contains(&time_of(Timing::Stock, 1, 1000).await));
        assert_eq!(time_of(Timing::Instant, 1, 1000).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_share_one_processor() {
        let ten = time_of(Timing::Stock, 10, 1000).await;
        assert!((241..=261).contains(&ten), "{ten} ms");
    }
}
