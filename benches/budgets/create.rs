//! `CreateVolume` compared with bare requests to the same control service.

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

/// The number of concurrent callers, and of calls by each of them in an iteration.
type Concurrency = (u32, usize);

const DECLARED: [Concurrency; 3] = [(1, 16), (16, 4), (64, 2)];
const BACKED: [Concurrency; 3] = [(1, 4), (16, 2), (64, 1)];
/// How often the bare client and the plugin alternate, so that both run on the same machine with as many datasets.
const ITERATIONS: usize = 4;
/// How often a bare client checks whether its dataset has storage; the plugin begins at the same interval.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// One call of one caller.
type Call = Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// The result of concurrent calls.
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

/// The bare request is only the POST.
async fn declared(bench: &Bench, table: &mut Table) -> Result<()> {
    let root = bench.workspace.memory().join("declared");
    // Without capacity, and with slow agents, no storage is made, so the measurement has the machine to itself.
    let change = |options| Options {
        timing: Timing::Stock,
        capacity: Some(0),
        ..options
    };
    let flocker = Flocker::start(&root, change).await?;
    let (plugin, calls) = callers(&flocker, &root, "declared").await?;
    for load in DECLARED {
        measure_load(&flocker, &calls, load, bench.scaled(ITERATIONS))
            .await?
            .row("declared", load.0, table);
    }
    plugin.stop().await
}

/// The bare request is the POST, followed by polling until a node has the dataset.
async fn backed(bench: &Bench, table: &mut Table) -> Result<()> {
    let root = bench.workspace.disk().join("backed");
    let flocker = Flocker::start(&root, |options| Options {
        capacity: Some(1 << 40),
        ..options
    })
    .await?;
    let (plugin, calls) = callers(&flocker, &root, "backed").await?;
    for (callers, each) in BACKED {
        let load = (
            if bench.quick { callers.min(4) } else { callers },
            bench.scaled(each),
        );
        measure_load(&flocker, &calls, load, 1)
            .await?
            .row("backed", load.0, table);
    }
    plugin.stop().await?;
    flocker.stop().await
}

/// The calls of the plugin's and of the bare client's measurement.
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
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// The same calls to the plugin and to Flocker itself.
#[derive(Default)]
struct Comparison {
    plugin: Load,
    bare: Load,
}

async fn measure_load(
    flocker: &Flocker,
    calls: &Calls,
    load: Concurrency,
    iterations: usize,
) -> Result<Comparison> {
    let mut comparison = Comparison::default();
    for _ in 0..iterations {
        comparison.bare.take(flocker, load, &calls.bare).await?;
        comparison.plugin.take(flocker, load, &calls.plugin).await?;
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
            // The number of calls is far below 2^32.
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
    /// Makes every caller call `each` times, one call after the other.
    async fn take(&mut self, flocker: &Flocker, (callers, each): Concurrency, call: &Call) -> Result<()> {
        let before = flocker.counters();
        let begun = Instant::now();
        let mut callers_running = JoinSet::new();
        for _ in 0..callers {
            callers_running.spawn(measure_calls(Arc::clone(call), each));
        }
        while let Some(durations) = callers_running.join_next().await {
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
