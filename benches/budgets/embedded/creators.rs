//! Many volumes that are created at the same time.

use tokio::time::{Duration, Instant};

use super::history::Deleted;
use super::life::{Standalone, at_once};
use super::mkfs;
use crate::report::Table;
use crate::samples::{digits, ratio};
use crate::{Bench, Result};

const CREATORS: usize = 64;
/// How many file systems are made concurrently where only that is done; the fastest counts.
const FORMATTERS: [usize; 3] = [2, 4, 8];

/// Creates many volumes at once, and as many file systems without any Flocker.
pub(super) async fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let count = bench.scaled(CREATORS);
    let directory = bench.workspace.disk().join("creators");
    let mut alone = Vec::new();
    for formatters in FORMATTERS {
        let taken = mkfs::make_file_systems(&directory, count, formatters).await?;
        alone.push((taken, formatters));
    }
    let (fastest, formatters) = alone.iter().min().copied().unwrap_or_default();
    let standalone = Standalone::start(&directory, Deleted::Names(0)).await?;
    let begun = Instant::now();
    at_once(&standalone.csi(), count, count, async |mut csi| {
        csi.create().await
    })
    .await?;
    let created = begun.elapsed();
    standalone.until_mounted(count).await?;
    let mounted = begun.elapsed();
    let many = f64::from(u32::try_from(count)?);
    let mut row = |what: String, taken: Duration| {
        let rate = format!("{} per second", digits(many / taken.as_secs_f64()));
        table.row([what, count.to_string(), rate]);
    };
    row(
        format!("CreateVolume, {count} at once, until the last is answered"),
        created,
    );
    row(
        format!("CreateVolume, {count} at once, until the last is mounted"),
        mounted,
    );
    row(format!("mkfs.ext4 alone, {formatters} at once"), fastest);
    let part = format!("{} %", digits(100.0 * ratio(fastest, mounted)));
    table.row(["until mounted, of what mkfs.ext4 alone allows", "", &part]);
    standalone.stop().await
}
