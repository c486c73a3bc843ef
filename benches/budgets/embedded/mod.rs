//! `standalone`: how long its volumes take, and that they take as long after 50,000 deleted ones and beside 1,000 others.

mod beside;
mod creators;
mod history;
mod life;
mod mkfs;
mod past;

use tokio::time::Duration;

use crate::report::{Budget, Section, Table};
use crate::samples::{Samples, digits, ratio, time};
use crate::{Bench, Result};
use life::{Standalone, Times};

/// How often each case is measured.
const ROUNDS: usize = 60;
/// How many volumes are made concurrently, where that is not what is measured.
const AT_ONCE: usize = 8;

/// What was measured.
struct Results {
    lives: Table,
    budgets: Vec<Budget>,
}

/// Times that are compared.
struct Ratio<'a> {
    what: &'a str,
    limit: f64,
    case: &'a Times,
    base: &'a Times,
}

/// Measures one case after the other. No mount of one is in the way of the next.
pub(crate) async fn measure(bench: &Bench) -> Result<Section> {
    let mut results = Results {
        lives: Table::new([
            "`standalone` with",
            "volumes",
            "CreateVolume, p50",
            "ControllerPublish, p50",
            "create → usable mount, p50",
            "p99",
            "DeleteVolume, p50",
            "p99",
            "resident",
        ]),
        budgets: Vec::new(),
    };
    let mut others = Table::new(["`standalone`", "volumes", "measured"]);
    eprintln!("bench: volumes that were deleted long ago");
    past::long_ago(bench, &mut results).await?;
    bench.workspace.clear()?;
    eprintln!("bench: volumes that the same process has deleted");
    past::of_this_process(bench, &mut results).await?;
    bench.workspace.clear()?;
    eprintln!("bench: volumes that exist");
    beside::measure(bench, &mut results).await?;
    bench.workspace.clear()?;
    eprintln!("bench: one name again and again");
    past::of_one_name(bench, &mut results, &mut others).await?;
    bench.workspace.clear()?;
    eprintln!("bench: many creators");
    creators::measure(bench, &mut others).await?;
    let Results { lives, budgets } = results;
    Ok(Section {
        title: "Volumes of `standalone`",
        budgets,
        tables: vec![lives, others],
    })
}

impl Results {
    /// Adds what one process has taken so far, and its memory.
    fn row(&mut self, with: &str, case: &Standalone) -> Result<()> {
        let times = &case.times;
        let mib = f64::from(case.memory()?.resident) / 1024.0;
        self.lives.row([
            with.to_owned(),
            times.create.count().to_string(),
            time(times.create.p50()),
            time(times.attach.p50()),
            time(times.usable.p50()),
            time(times.usable.p99()),
            time(times.delete.p50()),
            time(times.delete.p99()),
            format!("{} MiB", digits(mib)),
        ]);
        Ok(())
    }

    fn compare(&mut self, ratio: &Ratio<'_>) {
        let Ratio {
            what,
            limit,
            case,
            base,
        } = ratio;
        for (rpc, case, base) in [
            ("CreateVolume", &case.create, &base.create),
            ("ControllerPublishVolume", &case.attach, &base.attach),
            ("DeleteVolume", &case.delete, &base.delete),
        ] {
            self.budgets.push(ratio_of(
                format!("standalone: {rpc} {what}"),
                *limit,
                (case, base),
            ));
        }
    }
}

fn ratio_of(what: String, limit: f64, (case, base): (&Samples, &Samples)) -> Budget {
    let measured = ratio(case.p50(), base.p50());
    Budget {
        what,
        limit: format!("≤ {limit}"),
        measured: digits(measured),
        used: measured / limit,
    }
}

fn below(what: &str, samples: &Samples, limit: Duration) -> Budget {
    Budget {
        what: what.to_owned(),
        limit: format!("≤ {}", time(limit)),
        measured: time(samples.p50()),
        used: ratio(samples.p50(), limit),
    }
}
