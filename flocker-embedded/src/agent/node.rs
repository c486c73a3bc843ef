//! One node: a machine that can be switched off and on, and the agent that runs while the machine does.

use std::pin::pin;
use std::sync::Arc;

use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::convergence::Agent;
use super::shared::Shared;
use super::status::Status;
use crate::cluster::{Connection, Control};
use crate::faults::{MachineState, NodeFault};
use crate::options::{NodeInfo, Timing};

/// A node, its machine and its agent.
pub(crate) struct Node {
    info: NodeInfo,
    timing: Timing,
    /// How long it stays listed while it is silent.
    expiry: Duration,
    shared: Arc<Shared>,
    status: Arc<Status>,
    is_on: bool,
    /// The number of reboots of the plan that have been carried out.
    reboots: u32,
    silent_since: Instant,
}

impl Node {
    pub(crate) fn new(
        info: NodeInfo,
        timing: Timing,
        expiry: Duration,
        shared: Arc<Shared>,
        status: Arc<Status>,
    ) -> Self {
        Self {
            reboots: shared.faults.read(|plan| plan.node(info.number).reboots),
            info,
            timing,
            expiry,
            shared,
            status,
            is_on: true,
            silent_since: Instant::now(),
        }
    }

    /// Follows the plan of faults until `stop` is cancelled. Then its agent finishes the steps it has begun.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let number = self.info.number;
        let mut control = shared.cluster.control();
        while !stop.is_cancelled() {
            let service = *control.borrow_and_update();
            let wanted = shared.faults.read(|plan| plan.of_node(number));
            let (fault, reconnect_after) = &wanted;
            self.switch(fault).await;
            shared.faults.node_is(number, fault.clone());
            let change = async {
                select! {
                    () = shared.faults.until(|plan| plan.of_node(number) != wanted) => {}
                    // The sender is part of `shared`, so it exists.
                    _ = control.changed() => {}
                }
            };
            let connects = connection_time(fault, service, *reconnect_after);
            if connects.is_some_and(|time| time <= Instant::now()) {
                self.run_agent(service.run, change, &stop).await;
            } else {
                select! {
                    () = stop.cancelled() => {}
                    () = change => {}
                    () = sleep_until_some(connects) => {}
                    () = self.expire() => {}
                }
            }
        }
    }

    /// Runs the agent until `change` completes; then the agent finishes the steps it has begun.
    async fn run_agent(&mut self, run: u64, change: impl Future<Output = ()>, stop: &CancellationToken) {
        let connection = Connection {
            run,
            node: self.info.uuid,
            eras: self.shared.eras(self.info.uuid),
        };
        let agent = Agent::new(
            self.info.clone(),
            self.timing,
            Arc::clone(&self.shared),
            &self.status,
            connection,
        );
        let end = stop.child_token();
        let mut agent = pin!(agent.run(end.clone()));
        select! {
            () = &mut agent => {}
            () = change => {
                end.cancel();
                agent.await;
            }
        }
        self.silent_since = Instant::now();
    }

    /// Switches the machine off or on as the plan says.
    async fn switch(&mut self, fault: &NodeFault) {
        let reboots = fault.reboots > self.reboots;
        self.reboots = fault.reboots;
        let is_wanted = fault.machine == MachineState::On;
        if self.is_on && (reboots || !is_wanted) {
            self.is_on = false;
            self.carry_out(Shared::cut_power).await;
        }
        if !self.is_on && is_wanted {
            self.is_on = true;
            let era = fault.era.unwrap_or_else(Uuid::new_v4);
            self.carry_out(move |shared, node| shared.boot(node, era)).await;
        }
    }

    /// Carries out blocking work on the machine.
    async fn carry_out(&self, work: impl FnOnce(&Shared, &NodeInfo) + Send + 'static) {
        let (shared, node) = (Arc::clone(&self.shared), self.info.clone());
        if let Err(error) = spawn_blocking(move || work(&shared, &node)).await {
            tracing::error!(%error, "Switching the machine of node {} failed", self.info.number);
        }
    }

    /// Waits until the node has been silent for so long that it is no longer listed. Never returns if it is not
    /// listed.
    async fn expire(&self) {
        let cluster = &self.shared.cluster;
        let listed = cluster.has_reported(self.info.uuid);
        // A time that no clock reaches never expires.
        let end = self.silent_since.checked_add(self.expiry).filter(|_| listed);
        sleep_until_some(end).await;
        cluster.forget(self.info.uuid);
        tracing::info!(
            "Node {} has been silent for {:?}; it is no longer listed",
            self.info.number,
            self.expiry
        );
    }
}

/// Returns when an agent connects to the control service, if it does.
fn connection_time(fault: &NodeFault, service: Control, reconnect_after: Duration) -> Option<Instant> {
    if !fault.agent_runs() || !service.is_up {
        return None;
    }
    match service.run {
        0 => Some(service.since),
        _ => service.since.checked_add(reconnect_after),
    }
}

/// Sleeps until a time, or indefinitely if there is none.
async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
