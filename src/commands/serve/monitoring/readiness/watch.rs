//! What keeps readiness true while no call comes: the looks at directories, the reads of Flocker, the health service, and the
//! lines of the log.

use std::time::Duration;

use supervised_tasks::Supervisor;
use tokio::time::{Instant, sleep};

use super::{Check, Readiness};
use crate::commands::serve::services::Part;
use crate::flocker::cluster::Lists;
use crate::flocker::node_identity::NodeIdentity;
use crate::server::Health;

/// How often the checks are made.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How often they are made until the plugin is ready for the first time, and for how long at most.
const START_EVERY: Duration = Duration::from_millis(250);
const START: Duration = Duration::from_secs(10);
/// How often it is considered whether Flocker has to be asked.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// The checks whose changes are logged where they are noticed.
const LOGGED_ELSEWHERE: [&str; 3] = ["serving", "socket", "flocker"];

impl Readiness {
    /// Makes the checks regularly: reports them to the health service, and logs what changes.
    pub(crate) fn watch_in(&self, tasks: &Supervisor, health: &Health) {
        let watched = (self.clone(), health.clone());
        tasks.spawn("checking whether the plugin is ready", move || {
            watched.0.clone().watch(watched.1.clone())
        });
    }

    /// Asks Flocker whether it answers, at the start and then every few seconds in which no call has.
    pub(crate) fn keep_asking_in(&self, tasks: &Supervisor) {
        let asking = self.clone();
        tasks.spawn("checking Flocker", move || asking.clone().keep_asking());
    }

    async fn watch(self, health: Health) {
        let mut reported = [true; 3];
        let mut before: Vec<Check> = Vec::new();
        let begin = Instant::now();
        let mut starts = true;
        loop {
            if let Some(directories) = &self.directories {
                directories.look().await;
            }
            let checks = self.checks();
            starts = starts && begin.elapsed() < START && !self.is_ready(&checks);
            // What a start does not have yet in its first seconds is no fault.
            if !starts {
                log_changes(&before, &checks);
                before.clone_from(&checks);
            }
            let parts = [Part::Plugin, Part::Controller, Part::Node];
            for (part, reported) in parts.into_iter().zip(&mut reported) {
                let serves = match part {
                    // A restart of the plugin repairs nothing else.
                    Part::Plugin => self.needs_restart().is_none(),
                    _ => checks.iter().all(|check| !check.fails(part)),
                };
                if std::mem::replace(reported, serves) != serves {
                    health.set(part.names(), serves).await;
                }
            }
            sleep(if starts { START_EVERY } else { CHECK_EVERY }).await;
        }
    }

    async fn keep_asking(self) {
        let (cluster, identity) = (&self.sources.cluster, self.sources.identity.as_ref());
        let named = async {
            match identity {
                Some(identity) => identity.resolve().await.map(drop),
                None => Ok(()),
            }
        };
        // Concurrently: the identity of this node may take long to determine, and readiness waits for the first answer. What
        // Flocker answers is recorded, and logged when it does not.
        let (named, _) = tokio::join!(named, cluster.fresh(Lists::NODES));
        if let Err(error) = named {
            tracing::warn!(error = %error.chain(), "It is not known yet which node of Flocker this machine is; it is tried again");
        }
        loop {
            sleep(ASK_EVERY).await;
            if let Some(identity) = identity
                && identity.known().is_none()
            {
                // It was logged, and the check says so.
                identity.resolve().await.ok();
            }
            cluster.keep_asking(identity.and_then(NodeIdentity::known)).await;
        }
    }
}

/// Logs each check that differs from the one before; the first time, each that does not hold.
fn log_changes(before: &[Check], now: &[Check]) {
    for check in now {
        let held = before
            .iter()
            .find(|earlier| earlier.name == check.name)
            .is_none_or(|earlier| earlier.holds);
        if held == check.holds || LOGGED_ELSEWHERE.contains(&check.name) {
            continue;
        }
        let Check { name, found, .. } = check;
        if check.holds {
            tracing::info!(check = name, "The check {name} holds again: {found}");
        } else {
            tracing::warn!(check = name, "The check {name} fails: {found}");
        }
    }
}
