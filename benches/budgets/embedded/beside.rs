//! Whether the volumes of others cost a volume anything.

use std::mem::take;

use super::history::Deleted;
use super::life::{Standalone, at_once};
use super::{AT_ONCE, ROUNDS, Ratio, Results};
use crate::{Bench, Result};

/// How many volumes exist at first, and later.
const LIVE: [usize; 2] = [10, 1_000];
const LIMIT: f64 = 1.5;

/// Measures one process with few volumes, with many, and with few again. The machine changes meanwhile, so that the times with
/// few volumes are those of before and after.
pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<()> {
    let [few, many] = LIVE.map(|count| bench.scaled(count));
    let root = bench.workspace.disk().join("live");
    let mut standalone = Standalone::start(&root, Deleted::Names(0)).await?;
    let rounds = bench.scaled(ROUNDS);
    make(&standalone, few).await?;
    standalone.lives(rounds / 2 + 1).await?;
    let mut with_few = take(&mut standalone.times);
    let made = make(&standalone, many - few).await?;
    standalone.lives(rounds).await?;
    results.row(&format!("{many} volumes"), &standalone)?;
    let with_many = take(&mut standalone.times);
    let mut made = made.into_iter();
    at_once(&standalone.csi(), made.len(), AT_ONCE, |mut csi| {
        let volume = made.next();
        async move {
            match volume {
                Some(volume) => csi.delete(&volume).await,
                None => Ok(()),
            }
        }
    })
    .await?;
    standalone.lives(rounds / 2 + 1).await?;
    with_few.extend(take(&mut standalone.times));
    standalone.times = with_few;
    results.row(&format!("{few} volumes, before and after"), &standalone)?;
    results.compare(&Ratio {
        what: &format!("beside {many} volumes ÷ beside {few}, p50"),
        limit: LIMIT,
        case: &with_many,
        base: &standalone.times,
    });
    standalone.stop().await
}

async fn make(standalone: &Standalone, count: usize) -> Result<Vec<String>> {
    at_once(&standalone.csi(), count, AT_ONCE, async |mut csi| {
        csi.create().await
    })
    .await
}
