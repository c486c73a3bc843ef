//! `flocker-csi demo`: the life cycle of a volume on this machine, which leaves nothing behind.
//!
//! It calls two plugins, each on a node of an embedded Flocker, over their sockets as an orchestrator does. Its files are
//! in a temporary directory with a file system in memory, in a mount namespace of its own, so that no mount outlives the
//! process, even if that is killed.

mod cluster;
mod orchestrator;
mod screen;
mod script;
mod script_run;
mod steps;
mod workspace;

use std::io::{self, IsTerminal};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use workspace::enter_own_namespace;

use crate::commands::failure::Failure;
use crate::commands::signals::StopSignals;
use cluster::DemoCluster;
use screen::Screen;
use script::SCRIPT;
use script_run::ScriptRun;
use steps::StepRunner;
use workspace::Workspace;

/// Runs the demo. The calling thread, and those of its runtime, have to be in a mount namespace of their own.
///
/// SIGTERM and SIGINT end it early; finished steps are undone in every case.
///
/// # Errors
/// A step failed, the demo was interrupted, or a step cannot be undone.
pub async fn run() -> Result<(), Failure> {
    let interrupted = CancellationToken::new();
    let signals = StopSignals::listen()?;
    let listening = tokio::spawn(interrupt(signals, interrupted.clone()));
    let mut screen = Screen::new(Box::new(io::stdout()), io::stdout().is_terminal());
    screen.say("The life cycle of a volume on two nodes of an embedded Flocker on this machine.\n");
    let began = Instant::now();
    let finished = Box::pin(run_script(&mut screen, &interrupted)).await;
    listening.abort();
    let conclusion = finished?;
    screen.say(&format!("\n{conclusion}"));
    screen.say(&format!(
        "{} steps in {}. Nothing is left behind.",
        SCRIPT.len(),
        seconds(began.elapsed())
    ));
    Ok(())
}

/// Sets up, runs the steps, and cleans up in every case.
async fn run_script(screen: &mut Screen, interrupted: &CancellationToken) -> Result<String, Failure> {
    let workspace = Workspace::create().await?;
    let mut problems = Vec::new();
    let mut conclusion = String::new();
    match DemoCluster::start(&workspace, screen).await {
        Ok(cluster) => {
            let mut script = ScriptRun::new(StepRunner::new(&cluster), screen, interrupted);
            match script.run().await {
                Ok(shown) => conclusion = shown,
                Err(problem) => problems.push(problem),
            }
            problems.extend(script.undo().await);
            problems.extend(cluster.stop(screen).await);
        }
        Err(failure) => problems.extend(failure.lines().iter().cloned()),
    }
    problems.extend(workspace.remove().await.err());
    if problems.is_empty() {
        Ok(conclusion)
    } else {
        Err(Failure::Failed(problems.join("; then: ")))
    }
}

/// Interrupts the demo at the first signal, and logs that further ones have no effect.
async fn interrupt(mut signals: StopSignals, interrupted: CancellationToken) {
    loop {
        let signal = signals.next().await;
        if interrupted.is_cancelled() {
            tracing::warn!("{signal} again: the demo is undoing its steps, please wait");
        }
        interrupted.cancel();
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
