//! The loop of one agent: when it observes, and how long it pauses between two iterations.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::select;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::failures::Failures;
use super::plan::Plan;
use super::shared::Shared;
use super::status::Status;
use crate::backend::{Discovery, Seen};
use crate::cluster::Connection;
use crate::options::{NodeInfo, Timing};
use crate::storage_status::AgentStep;
use crate::store::Snapshot;

/// The agent of one node.
pub(super) struct Agent {
    pub(super) node: NodeInfo,
    timing: Timing,
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    /// The configuration that this agent last received.
    configuration: watch::Receiver<Arc<Snapshot>>,
    mounts: watch::Receiver<()>,
    pub(super) failures: Failures,
}

impl Agent {
    pub(super) fn new(
        node: NodeInfo,
        timing: Timing,
        shared: Arc<Shared>,
        status: &Status,
        connection: Connection,
    ) -> Self {
        Self {
            failures: Failures::new(node.number),
            node,
            timing,
            shared,
            connection,
            configuration: status.configuration(),
            mounts: status.mounts(),
        }
    }

    /// Converges until `stop` is cancelled; then it finishes the steps it has begun.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        if let Some(delay) = self.timing.batch() {
            // The time a real agent needs to connect.
            select! {
                () = sleep(delay) => {}
                () = stop.cancelled() => {}
            }
        }
        let mut attempt = 0;
        while !stop.is_cancelled() {
            if let Some(delay) = self.timing.observation() {
                select! {
                    () = sleep(delay) => {}
                    () = stop.cancelled() => return,
                }
            }
            let configuration = Arc::clone(&self.configuration.borrow_and_update());
            self.mounts.mark_unchanged();
            let began = Instant::now();
            let observed = self.observe(&configuration).await;
            let observation = began.elapsed();
            let pause = match observed {
                Err(error) => {
                    self.shared.failed_steps.count(AgentStep::Observe, 1);
                    self.failures.record_failed_observation(&error);
                    Pause::BackOff {
                        attempt,
                        observation,
                        seen: None,
                    }
                }
                Ok(Discovery { seen, failures }) => {
                    self.shared.failed_steps.count(AgentStep::Examine, failures.len());
                    self.failures.record_unexamined(failures);
                    let plan = Plan::new(self.node.uuid, &configuration.configuration, &seen);
                    if plan.is_empty() {
                        self.failures.forget_steps();
                        Pause::Idle {
                            seen,
                            waits: plan.waits,
                        }
                    } else if self.carry_out(plan).await && self.timing == Timing::Instant {
                        Pause::None
                    } else {
                        Pause::BackOff {
                            attempt,
                            observation,
                            seen: Some(seen),
                        }
                    }
                }
            };
            attempt = match pause {
                Pause::BackOff { attempt, .. } => attempt.saturating_add(1),
                Pause::None | Pause::Idle { .. } => 0,
            };
            select! {
                () = stop.cancelled() => {}
                () = self.pause(pause) => {}
            }
        }
    }

    /// Waits until it is time for the next iteration.
    async fn pause(&mut self, pause: Pause) {
        match pause {
            Pause::None => {}
            Pause::BackOff {
                attempt,
                observation,
                seen,
            } => {
                let back_off = self.timing.back_off(attempt, observation);
                select! {
                    () = sleep(back_off) => {}
                    () = self.until_steps(seen.as_ref()) => {}
                }
            }
            Pause::Idle { seen, waits } => self.idle(&seen, waits).await,
        }
    }

    /// Waits until a configuration arrives for which steps are possible, as far as the last observation shows; any one
    /// will do after a failed observation.
    ///
    /// What the steps since then have changed is not known. So an agent that has just attached a dataset sleeps through
    /// the news that it belongs to another node: it has seen it detached, which takes no step.
    async fn until_steps(&mut self, seen: Option<&BTreeMap<Uuid, Seen>>) {
        loop {
            if self.configuration.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let Some(seen) = seen else { return };
            let snapshot = Arc::clone(&self.configuration.borrow_and_update());
            if !Plan::new(self.node.uuid, &snapshot.configuration, seen).is_empty() {
                return;
            }
        }
    }

    /// Waits until steps may be possible.
    async fn idle(&mut self, seen: &BTreeMap<Uuid, Seen>, waits: bool) {
        let period = if waits {
            Some(self.timing.other_node())
        } else {
            self.timing.idle()
        };
        let wake_up = period.map(|period| Instant::now() + period);
        let fast = self.timing == Timing::Instant;
        loop {
            select! {
                () = sleep_until(wake_up.unwrap_or_else(Instant::now)), if wake_up.is_some() => return,
                _ = self.mounts.changed(), if fast => return,
                _ = self.configuration.changed() => {
                    let snapshot = Arc::clone(&self.configuration.borrow_and_update());
                    let plan = Plan::new(self.node.uuid, &snapshot.configuration, seen);
                    let is_new_wait = plan.waits && !waits;
                    if !plan.is_empty() || is_new_wait || (fast && plan.waits) {
                        return;
                    }
                }
            }
        }
    }
}

/// What an agent does between two iterations.
enum Pause {
    /// Nothing: the last iteration made progress.
    None,
    /// A back-off, after the given number of consecutive iterations that left steps to do. `observation` is how long the
    /// last one took to observe, and `seen` what that was.
    BackOff {
        attempt: u32,
        observation: Duration,
        seen: Option<BTreeMap<Uuid, Seen>>,
    },
    /// Waits for changes: no step is possible. `waits` as in [`Plan`].
    Idle { seen: BTreeMap<Uuid, Seen>, waits: bool },
}
