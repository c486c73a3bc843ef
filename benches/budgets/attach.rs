//! A thousand volumes that are attached concurrently.

use flocker_client::NewDataset;
use flocker_embedded::{Counters, Options, Timing};
use futures::stream::{StreamExt, TryStreamExt, iter};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use crate::csi::Csi;
use crate::flocker::{Flocker, VOLUME_SIZE, reads};
use crate::plugin::Plugin;
use crate::report::{Budget, Section, Table};
use crate::samples::{digits, time};
use crate::{Bench, Result};

/// The number of volumes and of concurrent calls.
const VOLUMES: usize = 1000;
/// The calls share this many connections, enough that none of them delays a call.
const CONNECTIONS: usize = 10;
const AT_ONCE: usize = 8;
/// At most one read of a list for this many calls: a call needs a list at most twice, and concurrent callers share their
/// reads by four or more.
const CALLS_FOR_A_READ: f64 = 2.0;

/// Attaches all volumes to the node they are on, releases them, and attaches them to another node.
pub(crate) async fn measure(bench: &Bench) -> Result<Section> {
    let count = bench.scaled(VOLUMES);
    let root = bench.workspace.memory().join("attach");
    // Without storage, which the controller does not need here, the embedded Flocker leaves the machine idle.
    let change = |options| Options {
        nodes: 2,
        timing: Timing::Stock,
        capacity: Some(0),
        ..options
    };
    let flocker = Flocker::start(&root, change).await?;
    let plugin = Plugin::serve(&root, &flocker, 1, &[]).await?;
    let volumes = declare(&flocker, count).await?;
    let mut table = Table::new([
        "ControllerPublish at once",
        "of volumes",
        "answered within",
        "configured datasets read",
        "states read",
        "nodes read",
        "leases read",
        "leases acquired",
        "moves",
        "connections to Flocker",
    ]);
    let mut most = 0;
    for (node, from) in [(1, "on that node"), (2, "on another node")] {
        release(&flocker, &volumes).await?;
        let (before, begun) = (flocker.counters(), Instant::now());
        attach(&plugin, &volumes, flocker.node(node)?.uuid).await?;
        let taken = begun.elapsed();
        let after = flocker.counters();
        table.add(row(count, from, taken, &before, &after));
        most = most.max(reads(&before, &after).into_iter().max().unwrap_or_default());
    }
    plugin.stop().await?;
    let per_read = f64::from(u32::try_from(count)?) / CALLS_FOR_A_READ;
    let most = f64::from(u32::try_from(most)?);
    let budget = Budget {
        what: format!("reads of a list for {count} ControllerPublish calls at once"),
        limit: format!("≤ {}", digits(per_read)),
        measured: digits(most),
        used: most / per_read,
    };
    Ok(Section {
        title: "A thousand volumes attached at once",
        budgets: vec![budget],
        tables: vec![table],
    })
}

/// Declares the given number of volumes on the first node.
async fn declare(flocker: &Flocker, count: usize) -> Result<Vec<Uuid>> {
    let (client, primary) = (flocker.client(), flocker.node(1)?.uuid);
    let declared = iter(0..count).map(|_| {
        let client = client.clone();
        let new = NewDataset {
            dataset_id: Some(Uuid::new_v4()),
            primary,
            maximum_size: Some(VOLUME_SIZE),
            metadata: [].into(),
        };
        async move {
            client
                .create_dataset(&new)
                .await
                .map(|dataset| dataset.dataset_id)
        }
    });
    Ok(declared.buffer_unordered(AT_ONCE).try_collect().await?)
}

async fn release(flocker: &Flocker, volumes: &[Uuid]) -> Result<()> {
    let client = flocker.client();
    let released = iter(volumes).map(|volume| client.release_lease(*volume));
    released.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
    Ok(())
}

/// Attaches every volume to a node, all concurrently.
async fn attach(plugin: &Plugin, volumes: &[Uuid], node: Uuid) -> Result<()> {
    let mut calls = JoinSet::new();
    for volumes in volumes.chunks(volumes.len().div_ceil(CONNECTIONS)) {
        let csi = plugin.connect().await?;
        for volume in volumes {
            let (mut csi, volume): (Csi, _) = (csi.clone(), volume.to_string());
            calls.spawn(async move { csi.attach(&volume, node).await });
        }
    }
    while let Some(answer) = calls.join_next().await {
        answer??;
    }
    Ok(())
}

fn row(count: usize, from: &str, taken: Duration, before: &Counters, after: &Counters) -> Vec<String> {
    let posts = |route| after.asked("POST", route) - before.asked("POST", route);
    let mut row = vec![count.to_string(), from.to_owned(), time(taken)];
    row.extend(reads(before, after).map(|count| count.to_string()));
    row.push(posts("/v1/configuration/leases").to_string());
    row.push(posts("/v1/configuration/datasets/{dataset_id}").to_string());
    row.push((after.connections - before.connections).to_string());
    row
}
