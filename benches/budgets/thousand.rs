//! The memory of an idle plugin, and of one that serves a thousand volumes.

use std::fs;
use std::path::Path;

use flocker_client::NewDataset;
use flocker_embedded::{Options, Timing};
use futures::stream::{StreamExt, TryStreamExt, iter};
use uuid::Uuid;

use crate::csi::Csi;
use crate::flocker::{Flocker, VOLUME_SIZE, until};
use crate::plugin::{Memory, Plugin};
use crate::report::{Budget, Section, Table};
use crate::samples::digits;
use crate::{Bench, Result, publish, waiting};

/// The number of volumes, each with its loop device, its file system, and its target.
const VOLUMES: usize = 1000;
/// How many of them are processed concurrently, as by an orchestrator's workers.
const AT_ONCE: usize = 8;

const IDLE_LIMIT_MIB: f64 = 15.0;
const IDLE_ANONYMOUS_LIMIT_MIB: f64 = 8.0;
const SERVING_LIMIT_MIB: f64 = 32.0;

/// Measures one plugin before and after, and then lets its volumes wait for another node.
pub(crate) async fn measure(bench: &Bench) -> Result<Section> {
    let count = bench.scaled(VOLUMES);
    let disk = bench.workspace.disk();
    // At full speed the embedded agents would read the mount table after each of thousands of mounts.
    let change = |options| Options {
        nodes: 2,
        timing: Timing::Stock,
        capacity: Some(1 << 40),
        ..options
    };
    let flocker = Flocker::start(&disk, change).await?;
    let metrics = ["--metrics-address=127.0.0.1:0".to_owned()];
    let plugin = Plugin::serve(&bench.workspace.memory(), &flocker, 1, &metrics).await?;
    let mut csi = plugin.csi();
    // The memory of the first call that needs Flocker is part of an idle plugin.
    csi.list(0).await?;
    let idle = plugin.memory()?;

    eprintln!("bench: making {count} volumes");
    let volumes = make_volumes(&flocker, count).await?;
    eprintln!("bench: staging and publishing them");
    let node = flocker.node(1)?.uuid;
    let published = iter(&volumes).map(|volume| stage_and_publish(csi.clone(), *volume, node, &disk));
    published
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    let (listed, _) = csi.list(0).await?;
    if listed != count {
        return Err(format!("{count} volumes are published, and ListVolumes has {listed}").into());
    }
    let serving = plugin.memory()?;
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?.lines().count();

    let mut table = Table::new(["`serve`", "resident", "anonymous", "most ever resident"]);
    table.add(memory_row(
        "idle, connected to Flocker, with metrics".to_owned(),
        idle,
    ));
    table.add(memory_row(
        format!("{count} volumes published ({mounts} mounts)"),
        serving,
    ));
    let mut budgets = vec![
        budget("idle: RSS", idle.resident, IDLE_LIMIT_MIB),
        budget("idle: anonymous", idle.anonymous, IDLE_ANONYMOUS_LIMIT_MIB),
        budget(
            &format!("{count} volumes published: RSS"),
            serving.resident,
            SERVING_LIMIT_MIB,
        ),
    ];
    eprintln!("bench: publishing one more for a single writer");
    let root = bench.workspace.memory();
    let more = csi.create().await?;
    let more = csi
        .attach_and_stage(&more, node, &disk.join("staging/one-more"))
        .await?
        .for_a_single_writer();
    let pairs = publish::measure_pairs(&mut csi, &more, &root, bench.scaled(publish::PAIRS)).await?;
    budgets.push(pairs.budget(&format!("{count} volumes staged, {}", publish::SINGLE)));
    eprintln!("bench: letting them wait for the other node");
    let waiting = waiting::measure(bench, &flocker, &plugin, &volumes).await?;
    budgets.push(waiting.budget);
    drop(plugin);
    // Not dropped: its work would continue while its files are removed.
    flocker.stop().await?;
    Ok(Section {
        title: "Memory, and a thousand volumes that wait",
        budgets,
        tables: vec![table, waiting.table],
    })
}

/// Creates the given number of volumes on the first node and waits until all of them are mounted there.
async fn make_volumes(flocker: &Flocker, count: usize) -> Result<Vec<Uuid>> {
    let (client, primary) = (flocker.client(), flocker.node(1)?.uuid);
    let made = iter(0..count).map(|number| {
        let metadata = [("name".to_owned(), format!("volume-{number}"))].into();
        let new = NewDataset {
            dataset_id: None,
            primary,
            maximum_size: Some(VOLUME_SIZE),
            metadata,
        };
        let client = client.clone();
        async move {
            client
                .create_dataset(&new)
                .await
                .map(|dataset| dataset.dataset_id)
        }
    });
    let volumes = made.buffer_unordered(AT_ONCE).try_collect().await?;
    until("all volumes to be mounted", async || {
        let states = client.list_dataset_states().await?;
        Ok(states.iter().filter(|state| state.path.is_some()).count() == count)
    })
    .await?;
    Ok(volumes)
}

async fn stage_and_publish(mut csi: Csi, volume: Uuid, node: Uuid, directory: &Path) -> Result<()> {
    let staged = csi
        .attach_and_stage(
            &volume.to_string(),
            node,
            &directory.join(format!("staging/{volume}")),
        )
        .await?;
    fs::create_dir_all(directory.join("targets"))?;
    csi.publish(&staged, &directory.join(format!("targets/{volume}")))
        .await
}

fn memory_row(what: String, memory: Memory) -> Vec<String> {
    let sizes = [memory.resident, memory.anonymous, memory.peak];
    std::iter::once(what)
        .chain(sizes.map(|kib| format!("{} MiB", digits(mib(kib)))))
        .collect()
}

fn budget(what: &str, kib: u32, limit: f64) -> Budget {
    Budget {
        what: what.to_owned(),
        limit: format!("≤ {limit} MiB"),
        measured: format!("{} MiB", digits(mib(kib))),
        used: mib(kib) / limit,
    }
}

fn mib(kib: u32) -> f64 {
    f64::from(kib) / 1024.0
}
