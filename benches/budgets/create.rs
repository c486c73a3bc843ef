//! `CreateVolume` against bare requests to the same control service.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use flocker_client::{Client, NewDataset};
use flocker_embedded::{Options, Timing};
use futures::future::{BoxFuture, FutureExt};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;

use crate::csi::Csi;
use crate::flocker::{Flocker, VOLUME_SIZE, reads};
use crate::plugin::Plugin;
use crate::report::{Section, Table};
use crate::samples::{Samples, digits, ratio, time};
use crate::{Bench, Result};

/// How many call at once, and how often each of them in a round.
type Crowd = (u32, usize);

const DECLARED: [Crowd; 3] = [(1, 16), (16, 4), (64, 2)];
const BACKED: [Crowd; 3] = [(1, 4), (16, 2), (64, 1)];
/// The bare client and the plugin take turns that often, so that both meet the same machine and as many datasets.
const ROUNDS: usize = 4;
/// How often a bare client looks whether its dataset has storage, which is what the plugin does at first.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One call of one caller.
type Call = Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// What came of a crowd's calls.
#[derive(Default)]
struct Load {
    samples: Samples,
    elapsed: Duration,
    /// How often one of Flocker's lists was read.
    reads: u64,
    /// How many connections to Flocker were made.
    connections: u64,
}

/// Measures until the dataset is declared, and until it has storage.
pub(crate) async fn measure(bench: &Bench) -> Result<Section> {
    let mut table = Table::new([
        "returns when",
        "callers",
        "volumes",
        "CreateVolume, p50",
        "per second",
        "lists read per volume",
        "connections to Flocker",
        "bare, p50",
        "per second",
        "lists read per volume",
        "connections to Flocker",
        "p50 ÷ bare",
    ]);
    declared(bench, &mut table).await?;
    backed(bench, &mut table).await?;
    Ok(Section {
        title: "CreateVolume",
        budgets: Vec::new(),
        tables: vec![table],
    })
}

/// The bare request is the POST alone.
async fn declared(bench: &Bench, table: &mut Table) -> Result<()> {
    let root = bench.workplace.memory().join("declared");
    // Without capacity, and at leisure, nothing is ever made, so that what is measured has the machine for itself.
    let change = |options| Options {
        timing: Timing::Stock,
        capacity: Some(0),
        ..options
    };
    let flocker = Flocker::start(&root, change).await?;
    let (plugin, calls) = callers(&flocker, &root, "declared").await?;
    for crowd in DECLARED {
        measure_crowd(&flocker, &calls, crowd, bench.scaled(ROUNDS))
            .await?
            .row("declared", crowd.0, table);
    }
    plugin.stop().await
}

/// The bare request is the POST, and then looking every so often whether some node has the dataset.
async fn backed(bench: &Bench, table: &mut Table) -> Result<()> {
    let root = bench.workplace.disk().join("backed");
    let flocker = Flocker::start(&root, |options| Options {
        capacity: Some(1 << 40),
        ..options
    })
    .await?;
    let (plugin, calls) = callers(&flocker, &root, "backed").await?;
    for (callers, each) in BACKED {
        let crowd = (
            if bench.quick { callers.min(4) } else { callers },
            bench.scaled(each),
        );
        measure_crowd(&flocker, &calls, crowd, 1)
            .await?
            .row("backed", crowd.0, table);
    }
    plugin.stop().await?;
    flocker.stop().await
}

/// What the plugin and the bare client are asked to do.
struct Calls {
    plugin: Call,
    bare: Call,
}

async fn callers(flocker: &Flocker, root: &Path, wait: &'static str) -> Result<(Plugin, Calls)> {
    let plugin = Plugin::serve(root, flocker, 1, &[format!("--provision-wait={wait}")]).await?;
    let (csi, client, node) = (plugin.csi(), flocker.client(), flocker.node(1)?.uuid);
    let calls = Calls {
        plugin: Arc::new(move || create(csi.clone()).boxed()),
        bare: Arc::new(move || declare(client.clone(), node, wait == "backed").boxed()),
    };
    Ok((plugin, calls))
}

async fn create(mut csi: Csi) -> Result<()> {
    csi.create().await.map(drop)
}

async fn declare(client: Client, primary: Uuid, backed: bool) -> Result<()> {
    let new = NewDataset {
        dataset_id: Some(Uuid::new_v4()),
        primary,
        maximum_size: Some(VOLUME_SIZE),
        metadata: BTreeMap::from([("name".to_owned(), Uuid::new_v4().to_string())]),
    };
    let dataset = client.create_dataset(&new).await?.dataset_id;
    while backed
        && !client
            .list_dataset_states()
            .await?
            .iter()
            .any(|state| state.dataset_id == dataset)
    {
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// The same crowd at the plugin and at Flocker itself.
#[derive(Default)]
struct Comparison {
    plugin: Load,
    bare: Load,
}

async fn measure_crowd(flocker: &Flocker, calls: &Calls, crowd: Crowd, rounds: usize) -> Result<Comparison> {
    let mut comparison = Comparison::default();
    for _ in 0..rounds {
        comparison.bare.take(flocker, crowd, &calls.bare).await?;
        comparison.plugin.take(flocker, crowd, &calls.plugin).await?;
    }
    Ok(comparison)
}

impl Comparison {
    fn row(&self, wait: &str, callers: u32, table: &mut Table) {
        let mut cells = vec![
            wait.to_owned(),
            callers.to_string(),
            self.plugin.samples.count().to_string(),
        ];
        for load in [&self.plugin, &self.bare] {
            // A crowd's calls are far from 2^32.
            let count = f64::from(u32::try_from(load.samples.count()).unwrap_or(u32::MAX));
            let reads = f64::from(u32::try_from(load.reads).unwrap_or(u32::MAX));
            cells.push(time(load.samples.p50()));
            cells.push(digits(count / load.elapsed.as_secs_f64()));
            cells.push(digits(reads / count));
            cells.push(load.connections.to_string());
        }
        cells.push(digits(ratio(self.plugin.samples.p50(), self.bare.samples.p50())));
        table.add(cells);
    }
}

impl Load {
    /// Lets every caller call that often, one call after the other.
    async fn take(&mut self, flocker: &Flocker, (callers, each): Crowd, call: &Call) -> Result<()> {
        let before = flocker.counters();
        let begun = Instant::now();
        let mut crowd = JoinSet::new();
        for _ in 0..callers {
            crowd.spawn(measure_calls(Arc::clone(call), each));
        }
        while let Some(durations) = crowd.join_next().await {
            self.samples.extend(durations??);
        }
        self.elapsed += begun.elapsed();
        let after = flocker.counters();
        self.reads += reads(&before, &after).iter().sum::<u64>();
        self.connections += after.connections - before.connections;
        Ok(())
    }
}

async fn measure_calls(call: Call, count: usize) -> Result<Vec<Duration>> {
    let mut durations = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        call().await?;
        durations.push(begun.elapsed());
    }
    Ok(durations)
}
