//! The time until a new volume can be used, compared with a client that waits until Flocker reports it.

use std::fs;
use std::path::{Path, PathBuf};

use flocker_client::NewDataset;
use flocker_embedded::{Options, Timing};
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;

use crate::flocker::{Flocker, VOLUME_SIZE};
use crate::plugin::Plugin;
use crate::report::{Budget, Section, Table};
use crate::samples::{Samples, digits, ratio, time};
use crate::{Bench, Result};

/// How often the two alternate, so that both run on the same machine.
const ITERATIONS: usize = 5;
/// How often the other client reads the states of all datasets.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The part of the other client's time that the plugin may take.
const LIMIT: f64 = 0.5;

/// Measures with Flocker's own delays: a mount exists seconds after the request, and is reported 10 s after that.
pub(crate) async fn measure(bench: &Bench) -> Result<Section> {
    let root = bench.workspace.disk().join("usable");
    let change = |options| Options {
        timing: Timing::Stock,
        capacity: Some(1 << 40),
        ..options
    };
    let flocker = Flocker::start(&root, change).await?;
    let plugin = Plugin::serve(&root, &flocker, 1, &[]).await?;
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for iteration in 0..bench.scaled(ITERATIONS) {
        let directory = root.join(format!("iteration-{iteration}"));
        fs::create_dir_all(&directory)?;
        ours.add(through_the_plugin(&flocker, &plugin, &directory).await?);
        theirs.add(through_state(&flocker).await?);
    }
    plugin.stop().await?;
    flocker.stop().await?;

    let mut table = Table::new([
        "from CreateVolume to a usable mount",
        "volumes",
        "min",
        "p50",
        "max",
    ]);
    for (what, samples) in [
        ("the plugin: create, publish, stage, publish in a row", &ours),
        ("a client that reads the state once a second for `path`", &theirs),
    ] {
        let mut row = vec![what.to_owned(), samples.count().to_string()];
        row.extend([samples.min(), samples.p50(), samples.max()].map(time));
        table.add(row);
    }
    let measured = ratio(ours.p50(), theirs.p50());
    let budget = Budget {
        what: "from CreateVolume to a usable mount, p50 ÷ that of a client that waits for `path` in state"
            .to_owned(),
        limit: format!("≤ {LIMIT}"),
        measured: digits(measured),
        used: measured / LIMIT,
    };
    Ok(Section {
        title: "A new volume until it can be used, at Flocker's own pace",
        budgets: vec![budget],
        tables: vec![table],
    })
}

async fn through_the_plugin(flocker: &Flocker, plugin: &Plugin, directory: &Path) -> Result<Duration> {
    let (mut csi, target) = (plugin.csi(), directory.join("target"));
    let node = flocker.node(1)?.uuid;
    let begun = Instant::now();
    let volume = csi.create().await?;
    let staged = csi
        .attach_and_stage(&volume, node, &directory.join("staging"))
        .await?;
    csi.publish(&staged, &target).await?;
    let taken = begun.elapsed();
    use_it(&target)?;
    Ok(taken)
}

/// The method of earlier clients: wait until Flocker reports a path. It does not even bind that path anywhere.
async fn through_state(flocker: &Flocker) -> Result<Duration> {
    let client = flocker.client();
    let begun = Instant::now();
    let new = NewDataset {
        dataset_id: Some(Uuid::new_v4()),
        primary: flocker.node(1)?.uuid,
        maximum_size: Some(VOLUME_SIZE),
        metadata: [].into(),
    };
    let dataset = client.create_dataset(&new).await?.dataset_id;
    let path: PathBuf = loop {
        let states = client.list_dataset_states().await?;
        let state = states.into_iter().find(|state| state.dataset_id == dataset);
        match state.and_then(|state| state.path) {
            Some(path) => break path,
            None => sleep(POLL_INTERVAL).await,
        }
    };
    let taken = begun.elapsed();
    use_it(&path)?;
    Ok(taken)
}

/// Checks that the path is a mount.
fn use_it(target: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
    let text = target.display().to_string();
    let mounted = table.lines().any(|line| line.split(' ').nth(4) == Some(&text));
    if !mounted {
        return Err(format!("nothing is mounted at {text}").into());
    }
    fs::write(target.join("data"), "used")?;
    Ok(())
}
