//! The metrics of an embedded Flocker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use flocker_embedded::{DatasetState, Embedded, PoolStatus, StorageStatus};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::http::{Page, Pages};
use crate::error::chain;
use crate::telemetry::{Latest, LookedUp, Series, number};

/// What the names of these metrics begin with.
const PREFIX: &str = "flocker_embedded";
/// How long the file systems of the pools may take to answer. The last answer is shown then.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// What an embedded Flocker stores; clones share the last look.
#[derive(Clone)]
pub(crate) struct StorageMetrics {
    read: Arc<dyn Fn() -> Option<Result<StorageStatus, flocker_embedded::Error>> + Send + Sync>,
    latest: Latest<Option<StorageStatus>>,
}

impl StorageMetrics {
    /// Looks at what this Flocker stores.
    pub(crate) fn of(flocker: &Embedded) -> Self {
        Self {
            read: Arc::new(flocker.storage_status()),
            latest: Latest::default(),
        }
    }

    /// Looks at it now; `None` where nothing has been seen.
    pub(crate) async fn look_up(&self) -> Option<LookedUp> {
        let read = Arc::clone(&self.read);
        let look = move || match read()? {
            Ok(status) => Some(status),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "The metrics of the storage are missing");
                None
            }
        };
        let status = self.latest.look(ANSWERS_WITHIN, look).await??;
        Some(LookedUp::of(PREFIX, Box::new(Storage(status))))
    }
}

impl Pages for StorageMetrics {
    const PATHS: &'static [&'static str] = &["/metrics"];

    async fn page(&self, _path: &str) -> Page {
        match self.look_up().await {
            Some(looked_up) => Page::Metrics(looked_up.into_text()),
            None => Page::No("what is stored cannot be seen; the log says why\n".to_owned()),
        }
    }
}

/// What is stored at one moment.
#[derive(Debug)]
struct Storage(StorageStatus);

/// A metric of each pool: its name, what it is, and how it is read.
type OfPool = (&'static str, &'static str, fn(&PoolStatus) -> u64);

const OF_POOLS: [OfPool; 4] = [
    (
        "pool_capacity",
        "What the sizes of all volumes of a pool may add up to",
        |pool| pool.capacity,
    ),
    (
        "pool_allocated",
        "What the sizes of all volumes of a pool add up to, with those that are not made yet",
        |pool| pool.allocated,
    ),
    (
        "pool_used",
        "What the volumes of a pool occupy of its file system",
        |pool| pool.used,
    ),
    ("pool_free", "What the file system of a pool has free", |pool| {
        pool.free
    }),
];

impl Collector for Storage {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(status) = self;
        let mut out = Series::new(encoder);
        for (name, help, read) in OF_POOLS {
            let series = status.pools.iter();
            let series = series.map(|pool| (vec![("pool", &*pool.name)], number(read(pool))));
            out.gauge(name, help, Some(&Unit::Bytes), series)?;
        }
        out.many(
            "datasets",
            "Datasets, by their state",
            status
                .datasets
                .iter()
                .map(|(state, datasets)| (vec![("state", DatasetState::name(*state))], number(*datasets))),
        )?;
        out.one(
            "loop_devices",
            "Loop devices that have a volume, also those that wait for their last mount to end",
            Some(number(status.loop_devices)),
        )?;
        out.counter(
            "agent_errors",
            "Steps of the agents that failed, each time; an agent tries them again",
            status
                .failed_steps
                .iter()
                .map(|(step, times)| (vec![("step", step.name())], *times)),
        )
    }
}

#[cfg(test)]
mod tests {
    use flocker_embedded::AgentStep;

    use super::*;

    #[test]
    fn every_state_and_step_is_on_the_page_of_metrics() {
        let page = include_str!("../../docs/metrics.md");
        let row = |label: &str| {
            let begin = format!("| `{label}` |");
            page.lines().find(|line| line.starts_with(&begin)).unwrap()
        };
        for state in DatasetState::ALL {
            assert!(row("state").contains(&format!("`{}`", state.name())), "{state:?}");
        }
        for step in AgentStep::ALL {
            assert!(row("step").contains(&format!("`{}`", step.name())), "{step:?}");
        }
    }
}
