//! `ListVolumes` with very many volumes.

use std::fs;

use serde_json::{Map, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::flocker::{Flocker, VOLUME_SIZE, reads};
use crate::plugin::Plugin;
use crate::report::{Budget, Section, Table};
use crate::samples::{digits, time};
use crate::{Bench, Result};

const DATASETS: usize = 10_000;
/// Entries on a page; 0 leaves the number to the plugin.
const PAGES: [i32; 2] = [0, 100];

/// Lists all datasets, on as few pages as possible and on many.
pub(crate) async fn measure(bench: &Bench) -> Result<Section> {
    let root = bench.workspace.memory();
    let count = bench.scaled(DATASETS);
    declare(bench, count)?;
    let flocker = Flocker::start(&root, |options| options).await?;
    let plugin = Plugin::serve(&root, &flocker, 1, &[]).await?;
    let mut csi = plugin.csi();
    csi.list(0).await?;

    let mut table = Table::new([
        "entries asked for",
        "pages",
        "time for all",
        "most reads of a list",
        "RSS after",
        "anonymous",
    ]);
    let mut worst = 0;
    for entries in PAGES {
        let before = flocker.counters();
        let begun = Instant::now();
        let (listed, pages) = csi.list(entries).await?;
        let taken = begun.elapsed();
        if listed != count {
            return Err(format!("{count} datasets are declared, and ListVolumes has {listed}").into());
        }
        let most = reads(&before, &flocker.counters())
            .into_iter()
            .max()
            .unwrap_or_default();
        worst = worst.max(most);
        let memory = plugin.memory()?;
        let mib = |kib: u32| format!("{} MiB", digits(f64::from(kib) / 1024.0));
        let asked = if entries == 0 {
            "any number".to_owned()
        } else {
            entries.to_string()
        };
        table.row([
            asked,
            pages.to_string(),
            time(taken),
            most.to_string(),
            mib(memory.resident),
            mib(memory.anonymous),
        ]);
    }
    plugin.stop().await?;
    flocker.stop().await?;
    let budgets = vec![Budget {
        what: format!("reads of a list for ListVolumes of {count} datasets, all pages"),
        limit: "1".to_owned(),
        measured: worst.to_string(),
        used: f64::from(u32::try_from(worst)?),
    }];
    Ok(Section {
        title: "ListVolumes",
        budgets,
        tables: vec![table],
    })
}

/// Declares the given number of datasets of a node that does not exist, so that no storage is ever made.
///
/// They are in a state file of the version before the database, which the first start takes over: a request for each would
/// take longer than the measurement.
fn declare(bench: &Bench, count: usize) -> Result<()> {
    let directory = bench.workspace.memory().join("flocker");
    let dataset = json!({
        "primary": Uuid::new_v4(), "deleted": false, "maximum_size": VOLUME_SIZE,
        "metadata": {"name": format!("pvc-{}", Uuid::new_v4())},
    });
    let datasets: Map<_, _> = (0..count)
        .map(|_| (Uuid::new_v4().to_string(), dataset.clone()))
        .collect();
    let state = json!({
        "cluster": Uuid::new_v4(), "nodes": [], "attachments": {},
        "configuration": {"datasets": datasets, "leases": {}, "registered": []},
    });
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("state.json"), serde_json::to_vec(&state)?)?;
    Ok(())
}
