//! Whether deleted volumes cost those that follow anything.

use tokio::time::{Duration, sleep};
use uuid::Uuid;

use super::history::Deleted;
use super::life::{LISTED, Standalone, at_once};
use super::{AT_ONCE, ROUNDS, Ratio, Results, below, ratio_of};
use crate::report::{Budget, Table};
use crate::samples::{Samples, digits, time};
use crate::{Bench, Result};

/// How many datasets were deleted long ago in each case; the first is what the others are compared with.
const DELETED: [usize; 3] = [0, 1_000, 50_000];
/// How many volumes a process creates and deletes itself.
const OWN: usize = 2_000;
const LIMIT: f64 = 1.2;

const USABLE: Duration = Duration::from_millis(120);
const DELETE: Duration = Duration::from_millis(100);
const RESIDENT_LIMIT_MIB: f64 = 24.0;

/// Measures three processes with pasts of different lengths, which take turns.
pub(super) async fn long_ago(bench: &Bench, results: &mut Results) -> Result<()> {
    let root = bench.workspace.disk().join("deleted");
    let mut cases = Vec::new();
    for count in DELETED {
        let deleted = Deleted::Names(bench.scaled(count));
        cases.push((
            count,
            Standalone::start(&root.join(count.to_string()), deleted).await?,
        ));
    }
    for _ in 0..bench.scaled(ROUNDS) {
        for (_, case) in &mut cases {
            case.live(&Uuid::new_v4().to_string()).await?;
        }
    }
    for (count, case) in &cases {
        results.row(&format!("{count} deleted volumes"), case)?;
    }
    let [(_, first), others @ ..] = &*cases else {
        return Ok(());
    };
    results.budgets.extend([
        below(
            "standalone: create → usable mount, p50",
            &first.times.usable,
            USABLE,
        ),
        below("standalone: DeleteVolume, p50", &first.times.delete, DELETE),
    ]);
    for (count, case) in others {
        results.compare(&Ratio {
            what: &format!("with {count} deleted volumes ÷ with none, p50"),
            limit: LIMIT,
            case: &case.times,
            base: &first.times,
        });
    }
    if let Some((count, last)) = cases.last() {
        let mib = f64::from(last.memory()?.resident) / 1024.0;
        results.budgets.push(Budget {
            what: format!("standalone with {count} deleted volumes: RSS"),
            limit: format!("≤ {RESIDENT_LIMIT_MIB} MiB"),
            measured: format!("{} MiB", digits(mib)),
            used: mib / RESIDENT_LIMIT_MIB,
        });
    }
    for (_, case) in cases {
        case.stop().await?;
    }
    Ok(())
}

/// Measures one process before and after it has created and deleted many volumes itself.
pub(super) async fn of_this_process(bench: &Bench, results: &mut Results) -> Result<()> {
    let count = bench.scaled(OWN);
    let root = bench.workspace.disk().join("many");
    let mut standalone = Standalone::start(&root, Deleted::Names(0)).await?;
    standalone.lives(bench.scaled(ROUNDS)).await?;
    results.row("none deleted by this process", &standalone)?;
    let before = std::mem::take(&mut standalone.times);
    at_once(&standalone.csi(), count, AT_ONCE, async |mut csi| {
        let volume = csi.create().await?;
        csi.delete(&volume).await
    })
    .await?;
    // Longer than they are listed, and than the time between two looks for those that are to be listed no longer.
    sleep(3 * LISTED).await;
    standalone.lives(bench.scaled(ROUNDS)).await?;
    results.row(&format!("{count} deleted by this process"), &standalone)?;
    results.compare(&Ratio {
        what: &format!("after {count} volumes of the same process ÷ before, p50"),
        limit: LIMIT,
        case: &standalone.times,
        base: &before,
    });
    standalone.stop().await
}

/// Creates and deletes volumes of a name that was used before as often as given, in turns with new names.
pub(super) async fn of_one_name(bench: &Bench, results: &mut Results, table: &mut Table) -> Result<()> {
    let (name, before) = ("used-again", bench.scaled(DELETED[2]));
    let root = bench.workspace.disk().join("one-name");
    let mut standalone = Standalone::start(&root, Deleted::Generations(name, before)).await?;
    let (mut again, mut new) = (Samples::default(), Samples::default());
    for _ in 0..bench.scaled(ROUNDS) {
        again.add(standalone.create_and_delete(name).await?);
        new.add(standalone.create_and_delete(&Uuid::new_v4().to_string()).await?);
    }
    standalone.stop().await?;
    let what =
        format!("standalone: CreateVolume of a name that was deleted {before} times ÷ of a new name, p50");
    results.budgets.push(ratio_of(what, LIMIT, (&again, &new)));
    for (what, samples) in [
        (
            format!("CreateVolume of a name that was deleted {before} times, p50"),
            &again,
        ),
        ("CreateVolume of a new name beside it, p50".to_owned(), &new),
    ] {
        table.row([what, samples.count().to_string(), time(samples.p50())]);
    }
    Ok(())
}
