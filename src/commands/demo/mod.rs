//! `flocker-csi demo`: shows the whole life of a volume on this machine, and leaves nothing behind.
//!
//! The demo runs two plugins, each on a node of an embedded Flocker, and calls them over their sockets as an orchestrator
//! does. It uses a temporary directory with a tmpfs, in a mount namespace of its own, so no mount outlives the process,
//! however it ends.

mod actor;
mod cluster;
mod orchestrator;
mod performance;
mod screen;
mod script;
mod workspace;

use std::io::{self, IsTerminal};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use workspace::enter_own_namespace;

use crate::commands::failure::Failure;
use crate::commands::signals::StopSignals;
use actor::Actor;
use cluster::DemoCluster;
use performance::Performance;
use screen::Screen;
use script::SCRIPT;
use workspace::Workspace;

/// Runs the demo. The calling thread, and those of its runtime, must be in a mount namespace of their own.
///
/// SIGTERM and SIGINT end it early; it then undoes the steps it has carried out.
///
/// # Errors
/// A step failed, the demo was interrupted, or a step could not be undone.
pub async fn run() -> Result<(), Failure> {
    let interrupted = CancellationToken::new();
    let signals = StopSignals::listen()?;
    let listening = tokio::spawn(interrupt(signals, interrupted.clone()));
    let mut screen = Screen::new(Box::new(io::stdout()), io::stdout().is_terminal());
    screen.say("The life of a volume, on two nodes of an embedded Flocker on this machine.\n");
    let began = Instant::now();
    let played = Box::pin(play(&mut screen, &interrupted)).await;
    listening.abort();
    let conclusion = played?;
    screen.say(&format!("\n{conclusion}"));
    screen.say(&format!(
        "{} steps in {}. Nothing is left behind.",
        SCRIPT.len(),
        seconds(began.elapsed())
    ));
    Ok(())
}

/// Starts the cluster, runs the steps, and cleans up in any case.
async fn play(screen: &mut Screen, interrupted: &CancellationToken) -> Result<String, Failure> {
    let workspace = Workspace::make().await?;
    let mut problems = Vec::new();
    let mut conclusion = String::new();
    match DemoCluster::start(&workspace, screen).await {
        Ok(cluster) => {
            let mut performance = Performance::new(Actor::new(&cluster), screen, interrupted);
            match performance.play().await {
                Ok(text) => conclusion = text,
                Err(problem) => problems.push(problem),
            }
            problems.extend(performance.undo().await);
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

/// Turns the first signal into an interruption, and logs that further signals have no effect.
async fn interrupt(mut signals: StopSignals, interrupted: CancellationToken) {
    loop {
        let signal = signals.next().await;
        if interrupted.is_cancelled() {
            tracing::warn!("{signal} again: the demo is already undoing its steps, please wait");
        }
        interrupted.cancel();
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
