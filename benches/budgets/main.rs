//! Measures the plugin against its budgets and prints the result as Markdown.
//!
//! `make bench` runs it; `docs/benchmarks.md` describes the measurements and holds the last published result.

mod attach;
mod create;
mod csi;
mod embedded;
mod flocker;
mod listing;
mod machine;
mod plugin;
mod program;
mod publish;
mod report;
mod requests;
mod samples;
mod start;
mod thousand;
mod usable;
mod waiting;
mod workspace;

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use flocker_csi::error::chain;
use futures::future::{FutureExt, LocalBoxFuture};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use report::{Report, Section};
use workspace::Workspace;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Measurement = fn(&Bench) -> LocalBoxFuture<'_, Result<Section>>;

const USAGE: &str = "\
usage: make bench ARGS=\"[--quick] [--docs FILE] [PART...]\"

  PART         publish, create, attach, usable, embedded, requests, start, thousand, listing, program; all of them unless any is named
  --quick      a twentieth of everything: shows that it runs, its numbers mean little
  --docs FILE  writes the result into this file too, between its two marks";

/// The context of every measurement.
struct Bench {
    workspace: Workspace,
    quick: bool,
}

impl Bench {
    /// Returns the number to use in this run instead of `full`.
    fn scaled(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(20) } else { full }
    }
}

/// The parsed command line.
#[derive(Default)]
struct Arguments {
    quick: bool,
    docs: Option<PathBuf>,
    parts: Vec<String>,
}

/// The measurements, in their order.
const PARTS: [(&str, Measurement); 10] = [
    ("publish", |bench| publish::measure(bench).boxed_local()),
    ("create", |bench| create::measure(bench).boxed_local()),
    ("attach", |bench| attach::measure(bench).boxed_local()),
    ("usable", |bench| usable::measure(bench).boxed_local()),
    ("embedded", |bench| embedded::measure(bench).boxed_local()),
    ("requests", |bench| requests::measure(bench).boxed_local()),
    ("start", |bench| start::measure(bench).boxed_local()),
    ("thousand", |bench| thousand::measure(bench).boxed_local()),
    ("listing", |bench| listing::measure(bench).boxed_local()),
    ("program", |_| async { program::measure() }.boxed_local()),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` also runs this, and no test takes minutes.
    if !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("The benchmarks are run by: make bench");
        return ExitCode::SUCCESS;
    }
    match parse(&arguments).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Arguments> {
    let mut parsed = Arguments::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            "--quick" => parsed.quick = true,
            "--docs" => parsed.docs = Some(arguments.next().ok_or("--docs needs a file")?.into()),
            part if PARTS.iter().any(|(name, _)| *name == part) => parsed.parts.push(part.to_owned()),
            other => return Err(format!("unknown argument {other:?}\n{USAGE}").into()),
        }
    }
    Ok(parsed)
}

fn run(arguments: Arguments) -> Result<()> {
    workspace::enter_own_namespace()?;
    let bench = Bench {
        workspace: Workspace::make()?,
        quick: arguments.quick,
    };
    // Dropped before the workspace, so that what still runs after an interrupted measurement ends first.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(&bench, arguments))
}

async fn measure(bench: &Bench, arguments: Arguments) -> Result<()> {
    let mut report = Report::of(machine::describe(bench.workspace.directory())?);
    for (name, measurement) in PARTS {
        if !arguments.parts.is_empty() && !arguments.parts.iter().any(|part| part == name) {
            continue;
        }
        eprintln!("bench: {name}");
        let begun = Instant::now();
        let section = unless_interrupted(measurement(bench)).await;
        let section = section.map_err(|error| format!("{name}: {}", chain(&*error)))?;
        bench.workspace.clear()?;
        eprintln!("bench: {name} took {:.0} s", begun.elapsed().as_secs_f64());
        report.add(section);
    }
    println!("{report}");
    if let Some(docs) = arguments.docs {
        report.write_into(&docs)?;
        eprintln!("bench: wrote {}", docs.display());
    }
    Ok(())
}

async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    }
}
