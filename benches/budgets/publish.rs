//! `NodePublishVolume` and `NodeUnpublishVolume` compared with the system calls that they require.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use flocker_embedded::{Options, Timing};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use tokio::time::{Duration, Instant};

use crate::csi::{Csi, Staged};
use crate::flocker::Flocker;
use crate::plugin::Plugin;
use crate::report::{Budget, Section, Table};
use crate::samples::{Samples, digits, ratio, time};
use crate::{Bench, Result};

/// The number of targets at which the volume is published during the measurement of a further one.
const EXISTING: [usize; 3] = [1, 100, 1000];
pub(crate) const PAIRS: usize = 2000;
const WARM_UP: usize = 100;

/// A volume that may have one target only: Kubernetes' `ReadWriteOncePod`.
pub(crate) const SINGLE: &str = "a single writer's";

/// The limit of the own time, as a multiple of the bare pair.
const LIMIT: f64 = 5.0;
/// The limit of the growth between the fewest and the most mounts that still counts as flat.
const FLAT: f64 = 1.25;

/// The figures measured side by side.
#[derive(Default)]
pub(crate) struct Pairs {
    /// Both calls, over the socket.
    whole: Samples,
    /// Probe: a call that does nothing.
    probe: Samples,
    /// Both calls, minus two calls of Probe made right before.
    own: Samples,
    /// mount(2) and umount(2).
    bare: Samples,
}

/// Measures with an increasing number of mounts.
pub(crate) async fn measure(bench: &Bench) -> Result<Section> {
    let root = bench.workspace.memory();
    // At full speed the embedded agents would read every mount, and take processor time from the measurement.
    let flocker = Flocker::start(&root, |options| Options {
        timing: Timing::Stock,
        ..options
    })
    .await?;
    let plugin = Plugin::serve(&root, &flocker, 1, &[]).await?;
    let mut csi = plugin.csi();
    let node = flocker.node(1)?.uuid;
    let mut staged = Vec::new();
    for directory in ["staging", "staging-of-the-other"] {
        let volume_id = csi.create().await?;
        staged.push(
            csi.attach_and_stage(&volume_id, node, &root.join(directory))
                .await?,
        );
    }
    let (Some(alone), Some(many)) = (staged.pop(), staged.pop()) else {
        return Err("two volumes were staged".into());
    };
    let volumes = [("one of many", many), (SINGLE, alone.for_a_single_writer())];

    let mut table = Table::new([
        "targets published",
        "lines in the mount table",
        "the target that comes and goes",
        "Publish + Unpublish, p50",
        "p99",
        "Probe, p50",
        "own time, p50",
        "mount(2) + umount(2), p50",
        "own ÷ bare",
        "whole ÷ bare",
    ]);
    let mut budgets = Vec::new();
    let (mut published, mut own) = (0, HashMap::<_, Vec<_>>::new());
    for existing in EXISTING {
        while published < existing {
            csi.publish(&volumes[0].1, &target(&root, published)?).await?;
            published += 1;
        }
        for (kind, staged) in &volumes {
            let pairs = measure_pairs(&mut csi, staged, &root, bench.scaled(PAIRS)).await?;
            let lines = fs::read_to_string("/proc/thread-self/mountinfo")?.lines().count();
            let (whole, bare) = (pairs.whole.p50(), pairs.bare.p50());
            table.row([
                existing.to_string(),
                lines.to_string(),
                (*kind).to_owned(),
                time(whole),
                time(pairs.whole.p99()),
                time(pairs.probe.p50()),
                time(pairs.own.p50()),
                time(bare),
                digits(ratio(pairs.own.p50(), bare)),
                digits(ratio(whole, bare)),
            ]);
            budgets.push(pairs.budget(&format!("{existing} published, {kind}")));
            own.entry(*kind).or_default().push(pairs.own.p50());
        }
    }
    for (kind, _) in &volumes {
        let own = own.remove(kind).unwrap_or_default();
        let growth = own
            .last()
            .zip(own.first())
            .map_or(0.0, |(most, fewest)| ratio(*most, *fewest));
        budgets.push(Budget {
            what: format!("the same, 1,000 published against 1, {kind}"),
            limit: format!("flat: ≤ {FLAT} ×"),
            measured: format!("{} ×", digits(growth)),
            used: growth / FLAT,
        });
    }
    Ok(Section {
        title: "NodePublish and NodeUnpublish",
        budgets,
        tables: vec![table],
    })
}

impl Pairs {
    /// Returns the budget of the own time against that of the bare pair.
    pub(crate) fn budget(&self, when: &str) -> Budget {
        let times_bare = ratio(self.own.p50(), self.bare.p50());
        Budget {
            what: format!("NodePublish + NodeUnpublish, own time, {when}"),
            limit: format!("≤ {LIMIT} × bare"),
            measured: format!("{} × bare", digits(times_bare)),
            used: times_bare / LIMIT,
        }
    }
}

/// Alternates between the plugin and the bare calls, so that both run on the same machine.
pub(crate) async fn measure_pairs(
    csi: &mut Csi,
    staged: &Staged,
    root: &Path,
    count: usize,
) -> Result<Pairs> {
    let (target, bare_target) = (root.join("target"), root.join("bare-target"));
    fs::create_dir_all(&bare_target)?;
    let mut pairs = Pairs::default();
    for number in 0..count + WARM_UP {
        let begun = Instant::now();
        csi.probe().await?;
        let probe = begun.elapsed();

        let begun = Instant::now();
        csi.publish(staged, &target).await?;
        csi.unpublish(staged, &target).await?;
        let whole = begun.elapsed();

        let bare = bare_pair(&staged.mount_point(), &bare_target)?;
        if number >= WARM_UP {
            pairs.probe.add(probe);
            pairs.whole.add(whole);
            pairs.own.add(whole.saturating_sub(probe * 2));
            pairs.bare.add(bare);
        }
    }
    Ok(pairs)
}

/// Measures a bind mount of the same volume and its unmount.
fn bare_pair(source: &Path, target: &Path) -> Result<Duration> {
    let begun = Instant::now();
    mount_bind(source, target)?;
    unmount(target, UnmountFlags::NOFOLLOW)?;
    Ok(begun.elapsed())
}

fn target(root: &Path, number: usize) -> Result<PathBuf> {
    let parent = root.join("published");
    fs::create_dir_all(&parent)?;
    Ok(parent.join(number.to_string()))
}
