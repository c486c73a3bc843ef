//! The time from creating the process to its first answer.

use tokio::time::Duration;

use crate::flocker::Flocker;
use crate::plugin::{Plugin, start_and_end};
use crate::report::{Budget, Section, Table};
use crate::samples::{Samples, ratio, time};
use crate::{Bench, Result};

const RUNS: usize = 40;
const LIMIT: Duration = Duration::from_millis(20);

/// Measures `serve`, `standalone`, and for comparison a process that only prints its version.
pub(crate) async fn measure(bench: &Bench) -> Result<Section> {
    let root = bench.workspace.memory();
    let flocker = Flocker::start(&root, |options| options).await?;
    let mut table = Table::new(["", "runs", "min", "p50", "max"]);
    let (mut version, mut serve, mut standalone) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut first = Samples::default();
    first.add(start_standalone(bench).await?);
    for _ in 0..bench.scaled(RUNS) {
        version.add(start_and_end()?);
        let plugin = Plugin::serve(&root.join("serve"), &flocker, 1, &[]).await?;
        serve.add(plugin.started_in());
        plugin.stop().await?;
        standalone.add(start_standalone(bench).await?);
    }
    let mut row = |what: &str, samples: &Samples| {
        let (runs, p50) = (samples.count().to_string(), time(samples.p50()));
        table.row([what, &runs, &time(samples.min()), &p50, &time(samples.max())]);
    };
    row("`flocker-csi --version`, until it has ended", &version);
    row("`serve`", &serve);
    row("`standalone`, started before", &standalone);
    row("`standalone`, the first time: it makes its keys", &first);
    let budget = |what: &str, samples: &Samples| Budget {
        what: format!("{what}: start to first Probe, p50"),
        limit: format!("≤ {}", time(LIMIT)),
        measured: time(samples.p50()),
        used: ratio(samples.p50(), LIMIT),
    };
    Ok(Section {
        title: "Start to first Probe",
        budgets: vec![budget("serve", &serve), budget("standalone", &standalone)],
        tables: vec![table],
    })
}

async fn start_standalone(bench: &Bench) -> Result<Duration> {
    let plugin = Plugin::standalone(&bench.workspace.memory().join("standalone"), &[]).await?;
    let taken = plugin.started_in();
    plugin.stop().await?;
    Ok(taken)
}
