//! The requests that Flocker gets while many volumes wait for it.

use futures::stream::{StreamExt, TryStreamExt, iter};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until};
use uuid::Uuid;

use crate::flocker::{Flocker, reads, until};
use crate::plugin::Plugin;
use crate::report::{Budget, Table};
use crate::samples::digits;
use crate::{Bench, Result};

const WINDOW: Duration = Duration::from_secs(20);
/// The shortest interval between two reads for a caller that has waited for a while.
const TICK: Duration = Duration::from_secs(1);
/// How long a caller waits until that interval applies: the first two reads follow after half a second and up to one.
const EARLY_READS: Duration = Duration::from_millis(1500);
const AT_ONCE: usize = 8;

const MOVE: (&str, &str) = ("POST", "/v1/configuration/datasets/{dataset_id}");

/// The result of the measurement.
pub(crate) struct Waiting {
    pub(crate) table: Table,
    pub(crate) budget: Budget,
}

/// Lets one volume, and then all volumes, wait to be attached to the second node while they are in use on the first.
pub(crate) async fn measure(
    bench: &Bench,
    flocker: &Flocker,
    plugin: &Plugin,
    volumes: &[Uuid],
) -> Result<Waiting> {
    // Without the lease the plugin may move them, and because of the pin they cannot leave the node.
    let client = flocker.client();
    let released = iter(volumes).map(|volume| client.release_lease(*volume));
    released.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;

    let window = if bench.quick { WINDOW / 4 } else { WINDOW };
    let mut table = Table::new([
        "ControllerPublish calls that wait",
        "for",
        "configured datasets read",
        "states read",
        "nodes read",
        "leases read",
        "most reads of a list per second",
    ]);
    let mut calls = JoinSet::new();
    let mut rate = 0.0;
    for waiting in [1, volumes.len()] {
        for volume in &volumes[calls.len()..waiting] {
            let (mut csi, volume, node) = (plugin.csi(), volume.to_string(), flocker.node(2)?.uuid);
            calls.spawn(async move { csi.attach(&volume, node).await.map(drop) });
        }
        until("all volumes to be on their way", async || {
            Ok(flocker.counters().asked(MOVE.0, MOVE.1) >= u64::try_from(waiting)?)
        })
        .await?;
        sleep_until(Instant::now() + EARLY_READS).await;
        let before = flocker.counters();
        sleep_until(Instant::now() + window).await;
        let reads = reads(&before, &flocker.counters());
        let most = reads.into_iter().max().unwrap_or_default();
        rate = f64::from(u32::try_from(most)?) / window.as_secs_f64();
        let [datasets, states, nodes, leases] = reads.map(|count| count.to_string());
        table.row([
            &waiting.to_string(),
            &format!("{} s", window.as_secs()),
            &datasets,
            &states,
            &nodes,
            &leases,
            &digits(rate),
        ]);
    }
    let budget = Budget {
        what: format!(
            "reads of a list while {} ControllerPublish calls wait",
            volumes.len()
        ),
        limit: format!("≤ 1 per tick of {} s", TICK.as_secs()),
        measured: format!("{} per s", digits(rate)),
        used: rate * TICK.as_secs_f64(),
    };
    Ok(Waiting { table, budget })
}
