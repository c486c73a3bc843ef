//! One iteration of an agent: it observes, reports, and carries out steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::{JoinSet, spawn_blocking};
use uuid::Uuid;

use super::convergence::Agent;
use super::outcome::{Done, Outcome};
use super::plan::{Plan, Step};
use super::shared::Shared;
use crate::backend::{Condition, Discovery, Seen, StepError};
use crate::cluster::Report;
use crate::error::chain;
use crate::options::NodeInfo;
use crate::storage_status::AgentStep;
use crate::store::{Snapshot, Storage};

impl Agent {
    /// Observes all datasets and reports them.
    pub(super) async fn observe(&self, snapshot: &Arc<Snapshot>) -> Result<Discovery, StepError> {
        let _observing = self.shared.observing.lock().await;
        let (shared, node, snapshot) = (Arc::clone(&self.shared), self.node.clone(), Arc::clone(snapshot));
        let discovery = blocking(move || {
            let records = || shared.store.storage();
            shared
                .backend
                .discover(&node, &snapshot.configuration, records, &shared.dead())
        })
        .await?;
        self.shared
            .cluster
            .report(&self.connection, report(&self.node, &discovery.seen));
        Ok(discovery)
    }

    /// Carries out steps concurrently, and returns whether any of them succeeded.
    pub(super) async fn carry_out(&mut self, plan: Plan) -> bool {
        let mut steps = JoinSet::new();
        let (begun, not_begun) = self.begin_storage(plan.steps).await;
        for (dataset, step) in begun {
            let (shared, node, kind) = (Arc::clone(&self.shared), self.node.clone(), step.kind());
            steps.spawn(async move {
                let outcome = (dataset, carry_out(&shared, node, dataset, step).await);
                shared
                    .failed_steps
                    .count(kind, failed(std::slice::from_ref(&outcome)));
                outcome
            });
        }
        let registered = self.register(plan.register).await;
        let attached = self.attach(plan.attach).await;
        let mut outcomes = Vec::new();
        for (step, outcome) in [
            (AgentStep::Create, not_begun),
            (AgentStep::Register, registered),
            (AgentStep::Attach, attached),
        ] {
            self.shared.failed_steps.count(step, failed(&outcome));
            outcomes.extend(outcome);
        }
        while let Some(outcome) = steps.join_next().await {
            match outcome {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => tracing::error!(%error, "A step of node {} panicked", self.node.number),
            }
        }
        self.forget_detached(&outcomes).await;
        self.failures.record(outcomes)
    }

    /// Records which volumes are about to be made, all in one write: nothing is formatted later that was not recorded
    /// here. Returns the steps that may be carried out, and the outcomes of the others.
    async fn begin_storage(&self, steps: Vec<(Uuid, Step)>) -> (Vec<(Uuid, Step)>, Vec<Outcome>) {
        let is_new = |step: &Step| matches!(step, Step::Create(_));
        let new: Vec<_> = steps
            .iter()
            .filter(|(_, step)| is_new(step))
            .map(|(dataset, _)| *dataset)
            .collect();
        if new.is_empty() {
            return (steps, Vec::new());
        }
        let (shared, datasets) = (Arc::clone(&self.shared), new.clone());
        let recorded = blocking(move || {
            let files = shared.backend.volumes().files();
            let recorded = shared
                .store
                .begin_storage(&datasets, |dataset| files.contains_key(&dataset));
            recorded.map_err(StepError::State)
        });
        match recorded.await {
            Ok(()) => (steps, Vec::new()),
            Err(error) => {
                let others = steps.into_iter().filter(|(_, step)| !is_new(step));
                (others.collect(), for_all(&new, Err(error)))
            }
        }
    }

    /// Records that volumes exist, all in one write.
    async fn register(&self, datasets: Vec<Uuid>) -> Vec<Outcome> {
        if datasets.is_empty() {
            return Vec::new();
        }
        let (store, new) = (Arc::clone(&self.shared.store), datasets.clone());
        let written = blocking(move || store.register(&new).map_err(StepError::State));
        for_all(&datasets, written.await.map(|()| Done::Registered))
    }

    /// Attaches volumes, and records before that they belong to this node.
    async fn attach(&self, datasets: Vec<Uuid>) -> Vec<Outcome> {
        if datasets.is_empty() {
            return Vec::new();
        }
        let (shared, node, wanted) = (Arc::clone(&self.shared), self.node.uuid, datasets.clone());
        let attached = blocking(move || {
            let wanted = wanted
                .into_iter()
                .map(|dataset| (dataset, shared.expected(dataset)));
            let wanted = wanted.collect();
            let record = |free: &[Uuid]| {
                let records = free.iter().map(|dataset| (*dataset, node));
                shared.store.record_attachments(records).map_err(StepError::State)
            };
            shared.backend.attach(&wanted, record)
        });
        match attached.await {
            Ok(outcomes) => outcomes
                .into_iter()
                .map(|(id, outcome)| (id, outcome.map(|()| Done::Attached)))
                .collect(),
            Err(error) => for_all(&datasets, Err(error)),
        }
    }

    /// Removes the records of detached datasets. A record that stays because of a crash does no harm: without a loop
    /// device it has no meaning.
    async fn forget_detached(&self, outcomes: &[Outcome]) {
        let detached = outcomes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Ok(Done::Detached)));
        let datasets: Vec<_> = detached.map(|(dataset, _)| *dataset).collect();
        if datasets.is_empty() {
            return;
        }
        let (store, node) = (Arc::clone(&self.shared.store), self.node.uuid);
        let forget = move || {
            store
                .forget_attachments(&datasets, node)
                .map_err(StepError::State)
        };
        if let Err(error) = blocking(forget).await {
            tracing::error!(
                "Cannot record which datasets node {} has detached: {}",
                self.node.number,
                chain(&error)
            );
        }
    }
}

async fn carry_out(shared: &Shared, node: NodeInfo, dataset: Uuid, step: Step) -> Result<Done, StepError> {
    // The semaphores are never closed, so acquiring a permit does not fail.
    let _permit = shared.acquire_permit(&step).await;
    let (backend, store) = (Arc::clone(&shared.backend), Arc::clone(&shared.store));
    let expected = shared.expected(dataset);
    let work = move || match step {
        Step::Create(size) => backend.volumes().create(dataset, size).map(|()| Done::Created),
        Step::Format(device) => {
            if store.storage_of(dataset) != Some(Storage::Formatting) {
                return Err(StepError::NotFormatting(device));
            }
            let file_system = backend.make_file_system(dataset, &device)?;
            let recorded = store.finish_storage(dataset, file_system);
            recorded.map(|()| Done::Formatted).map_err(StepError::State)
        }
        Step::Mount(device) => {
            let file_system = backend.file_system(dataset, &device)?;
            expected.check_file_system(&device, file_system)?;
            // Where a crash has prevented it: what was mounted once may have data.
            if store.storage_of(dataset) == Some(Storage::Formatting) {
                store
                    .finish_storage(dataset, file_system)
                    .map_err(StepError::State)?;
            }
            backend.mount(dataset, &device, &node).map(|()| Done::Mounted)
        }
        Step::Unmount(device) => backend.unmount(dataset, &device).map(|()| Done::Unmounted),
        Step::Detach(device) => backend.detach(dataset, &device).map(|()| Done::Detached),
        Step::DetachFromDead => backend.detach_from_dead(dataset).map(|()| Done::DetachedFromDead),
        Step::Destroy => backend.destroy(dataset).map(|()| Done::Destroyed),
    };
    blocking(work).await
}

/// Runs blocking work on a thread for such work. Once begun it is carried out to its end.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    spawn_blocking(work).await.map_err(StepError::Task)?
}

/// Returns how many of these outcomes are failures.
fn failed(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count()
}

/// Returns the one outcome that several datasets share.
fn for_all(datasets: &[Uuid], outcome: Result<Done, StepError>) -> Vec<Outcome> {
    let outcome = outcome.map_err(Arc::new);
    datasets
        .iter()
        .map(|dataset| (*dataset, outcome.clone().map_err(StepError::Common)))
        .collect()
}

fn report(node: &NodeInfo, seen: &BTreeMap<Uuid, Seen>) -> Report {
    let mut report = Report::default();
    for (dataset, seen) in seen {
        match seen.condition {
            Condition::Mounted(_) => {
                report
                    .mounted
                    .insert(*dataset, (seen.size, node.mount_path(*dataset)));
            }
            Condition::Detached
            | Condition::Attached(_)
            | Condition::Unformatted(_)
            | Condition::Unexamined => {
                report.unmounted.insert(*dataset, seen.size);
            }
            Condition::Unavailable
            | Condition::Unregistered
            | Condition::AttachedElsewhere
            | Condition::AttachedToDead => {}
        }
        if matches!(seen.condition, Condition::Unavailable | Condition::Unexamined) {
            report.unavailable.insert(*dataset);
        }
        if let Some(device) = seen.condition.device() {
            report.devices.insert(*dataset, device.to_owned());
        }
    }
    report
}
