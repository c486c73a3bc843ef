//! `flocker-csi demo`: the whole life of a volume on this machine, leaving nothing behind.
//!
//! Two plugins, each on a node of an embedded Flocker, are called over their sockets as an orchestrator would.
//! All of it happens in a temporary directory that is a file system in memory, in a mount namespace of its own, so
//! that however the process ends, no mount outlives it.

mod actor;
mod orchestrator;
mod performance;
mod screen;
mod script;
mod site;
mod workplace;

use std::io::{self, IsTerminal};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use workplace::enter_own_namespace;

use crate::commands::failure::Failure;
use crate::commands::signals::StopSignals;
use actor::Actor;
use performance::Performance;
use screen::Screen;
use script::SCRIPT;
use site::Site;
use workplace::Workplace;

/// Plays the demo. The calling thread, and those of its runtime, have to be in a mount namespace of their own.
///
/// SIGTERM and SIGINT end it early; what was done is undone all the same.
///
/// # Errors
/// A step failed, it was interrupted, or something could not be undone.
pub async fn run() -> Result<(), Failure> {
    let interrupted = CancellationToken::new();
    let signals = StopSignals::listen()?;
    let listening = tokio::spawn(interrupt(signals, interrupted.clone()));
    let mut screen = Screen::new(Box::new(io::stdout()), io::stdout().is_terminal());
    screen.say("The life of a volume, on two nodes of an embedded Flocker on this machine.\n");
    let began = Instant::now();
    let played = Box::pin(play(&mut screen, &interrupted)).await;
    listening.abort();
    let told = played?;
    screen.say(&format!("\n{told}"));
    screen.say(&format!(
        "{} steps in {}. Nothing is left behind.",
        SCRIPT.len(),
        seconds(began.elapsed())
    ));
    Ok(())
}

/// Sets up, plays the steps, and cleans up in any case.
async fn play(screen: &mut Screen, interrupted: &CancellationToken) -> Result<String, Failure> {
    let workplace = Workplace::make().await?;
    let mut problems = Vec::new();
    let mut told = String::new();
    match Site::start(&workplace, screen).await {
        Ok(site) => {
            let mut performance = Performance::new(Actor::new(&site), screen, interrupted);
            match performance.play().await {
                Ok(conclusion) => told = conclusion,
                Err(problem) => problems.push(problem),
            }
            problems.extend(performance.undo().await);
            problems.extend(site.stop(screen).await);
        }
        Err(failure) => problems.extend(failure.lines().iter().cloned()),
    }
    problems.extend(workplace.remove().await.err());
    if problems.is_empty() {
        Ok(told)
    } else {
        Err(Failure::Failed(problems.join("; then: ")))
    }
}

/// Makes the first signal an interruption, and tells that more of them change nothing.
async fn interrupt(mut signals: StopSignals, interrupted: CancellationToken) {
    loop {
        let signal = signals.next().await;
        if interrupted.is_cancelled() {
            tracing::warn!("{signal} again: what was done is being undone, please wait");
        }
        interrupted.cancel();
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
