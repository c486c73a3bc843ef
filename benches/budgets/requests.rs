//! The requests that Flocker gets during the life of a volume, by RPC and list, at Flocker's own pace.

use std::fs;
use std::future::Future;
use std::path::Path;

use flocker_embedded::{Counters, Options, Timing};
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use crate::flocker::{Flocker, LISTS, reads, until};
use crate::plugin::Plugin;
use crate::report::{Budget, Section, Table};
use crate::samples::digits;
use crate::{Bench, Result};

/// How often a life is measured; the most requests count.
const LIVES: usize = 3;
/// Background reads are not counted: the leases are read at the start, and next after this time while a volume is staged.
const UNTIL_THE_NEXT_READ: Duration = Duration::from_secs(29);

/// Where a volume is used, and how many requests its life may cost.
const CASES: [(&str, usize, u64); 2] = [("where it was created", 0, 20), ("on another node", 1, 28)];

/// The requests of each RPC.
struct Life(Vec<Step>);

struct Step {
    rpc: &'static str,
    lists: [u64; 4],
    writes: u64,
}

impl Step {
    fn all(&self) -> u64 {
        self.lists.iter().sum::<u64>() + self.writes
    }
}

impl Life {
    async fn step<T>(
        &mut self,
        flocker: &Flocker,
        rpc: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let before = flocker.counters();
        let answer = call.await?;
        let after = flocker.counters();
        let lists = reads(&before, &after);
        let writes = all(&after) - all(&before) - lists.iter().sum::<u64>();
        self.0.push(Step { rpc, lists, writes });
        Ok(answer)
    }

    fn total(&self) -> u64 {
        self.0.iter().map(Step::all).sum()
    }
}

fn all(counters: &Counters) -> u64 {
    counters.requests.values().sum()
}

/// Counts the lives of volumes that are used on the node on which they are created, and on another one.
pub(crate) async fn measure(bench: &Bench) -> Result<Section> {
    let root = bench.workspace.disk().join("requests");
    let change = |options| Options {
        nodes: 2,
        timing: Timing::Stock,
        capacity: Some(1 << 40),
        ..options
    };
    let flocker = Flocker::start(&root, change).await?;
    // Volumes are created on the node with the lower UUID, as long as neither has data.
    let mut nodes = [(flocker.node(1)?.uuid, 1), (flocker.node(2)?.uuid, 2)];
    nodes.sort_unstable();
    let mut table = Table::new([
        "a volume used",
        "RPC",
        "configured datasets",
        "states",
        "nodes",
        "leases",
        "other requests",
        "all",
    ]);
    let mut budgets = Vec::new();
    for (used, user, limit) in CASES {
        let mut most: Option<Life> = None;
        for _ in 0..bench.scaled(LIVES) {
            let life = live(&flocker, &root, nodes[user]).await?;
            if most.as_ref().is_none_or(|most| most.total() < life.total()) {
                most = Some(life);
            }
        }
        let most = most.ok_or("no life was measured")?;
        most.rows(used, &mut table);
        let total = f64::from(u32::try_from(most.total())?);
        let limited = f64::from(u32::try_from(limit)?);
        budgets.push(Budget {
            what: format!("requests to Flocker for the life of a volume that is used {used}"),
            limit: format!("≤ {limit}"),
            measured: digits(total),
            used: total / limited,
        });
    }
    flocker.stop().await?;
    Ok(Section {
        title: "Requests to Flocker for the life of a volume",
        budgets,
        tables: vec![table],
    })
}

impl Life {
    fn rows(&self, used: &str, table: &mut Table) {
        let mut sum = [0; 6];
        for step in &self.0 {
            let [configured, states, nodes, leases] = step.lists;
            let counts = [configured, states, nodes, leases, step.writes, step.all()];
            for (sum, count) in sum.iter_mut().zip(counts) {
                *sum += count;
            }
            add(used, step.rpc, counts, table);
        }
        add(used, "all", sum, table);
    }
}

fn add(used: &str, rpc: &str, counts: [u64; 6], table: &mut Table) {
    let mut row = vec![used.to_owned(), rpc.to_owned()];
    row.extend(counts.map(|count| count.to_string()));
    table.add(row);
}

/// Lets a volume be created, used on a node and deleted, by a plugin that starts before; repeats it if it took so long that a
/// background read may have been counted.
async fn live(flocker: &Flocker, root: &Path, (node, number): (Uuid, usize)) -> Result<Life> {
    loop {
        let directory = root.join(Uuid::new_v4().to_string());
        fs::create_dir_all(&directory)?;
        let (began, before) = (Instant::now(), flocker.counters());
        let plugin = Plugin::serve(&directory, flocker, number, &[]).await?;
        until("the leases to be read at the start", async || {
            Ok(flocker.counters().asked("GET", LISTS[3]) > before.asked("GET", LISTS[3]))
        })
        .await?;
        let life = life(flocker, &plugin, node, &directory).await?;
        plugin.stop().await?;
        if began.elapsed() < UNTIL_THE_NEXT_READ {
            return Ok(life);
        }
    }
}

async fn life(flocker: &Flocker, plugin: &Plugin, node: Uuid, directory: &Path) -> Result<Life> {
    let (mut csi, mut life) = (plugin.csi(), Life(Vec::new()));
    let (staging, target) = (directory.join("staging"), directory.join("target"));
    fs::create_dir_all(&staging)?;
    let volume = life.step(flocker, "CreateVolume", csi.create()).await?;
    let attaching = csi.attach(&volume, node);
    let context = life.step(flocker, "ControllerPublishVolume", attaching).await?;
    let staging = csi.stage(&volume, context, &staging);
    let staged = life.step(flocker, "NodeStageVolume", staging).await?;
    let publishing = csi.publish(&staged, &target);
    life.step(flocker, "NodePublishVolume", publishing).await?;
    let unpublishing = csi.unpublish(&staged, &target);
    life.step(flocker, "NodeUnpublishVolume", unpublishing).await?;
    life.step(flocker, "NodeUnstageVolume", csi.unstage(&staged))
        .await?;
    let detaching = csi.detach(&volume, node);
    life.step(flocker, "ControllerUnpublishVolume", detaching).await?;
    life.step(flocker, "DeleteVolume", csi.delete(&volume)).await?;
    Ok(life)
}
