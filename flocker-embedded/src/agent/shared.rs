//! What all agents share, and what happens before the first of them begins and after the last has ended.

use std::sync::Arc;

use tokio::sync::{AcquireError, Mutex, Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::failures::chain;
use super::plan::Step;
use crate::backend::{Backend, Released, StepError};
use crate::cluster::Cluster;
use crate::options::NodeInfo;
use crate::store::Store;

/// Number of file systems that are made at a time, by all agents together.
const FORMATTERS: usize = 2;
/// Number of other steps that are carried out at a time, each on a thread of its own.
const WORKERS: usize = 8;

/// What all agents share.
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) backend: Arc<Backend>,
    pub(crate) cluster: Arc<Cluster>,
    /// Held from looking to having reported, so that no report is older than the one it replaces.
    pub(super) looking: Mutex<()>,
    formatters: Semaphore,
    workers: Semaphore,
}

impl Shared {
    pub(crate) fn new(store: Arc<Store>, backend: Arc<Backend>, cluster: Arc<Cluster>) -> Self {
        Self {
            store,
            backend,
            cluster,
            looking: Mutex::new(()),
            formatters: Semaphore::new(FORMATTERS),
            workers: Semaphore::new(WORKERS),
        }
    }

    /// Waits for the turn of a step, which ends with the permit.
    pub(super) async fn turn(&self, step: &Step) -> Result<SemaphorePermit<'_>, AcquireError> {
        let semaphore = if matches!(step, Step::Format(_)) {
            &self.formatters
        } else {
            &self.workers
        };
        semaphore.acquire().await
    }

    /// Gives loop devices that have a backing file of ours, but no record of their node, to a node. Blocks.
    pub(crate) fn adopt(&self, nodes: &[NodeInfo]) {
        let snapshot = self.store.snapshot();
        let found =
            self.backend
                .unrecorded_attachments(nodes, &snapshot.configuration, &self.store.attachments());
        let adopted = found.and_then(|owners| {
            for (dataset, node) in &owners {
                tracing::info!(dataset.id = %dataset, "Dataset {dataset} is attached; it counts as node {node}'s");
            }
            self.store.change(|state| state.attachments.extend(owners)).map_err(StepError::State)
        });
        if let Err(error) = adopted {
            tracing::error!("Cannot adopt loop devices of an earlier run: {}", chain(&error));
        }
    }

    /// Unmounts and detaches what nobody uses on a node, and returns what the kernel is still to free. Blocks.
    pub(crate) fn release(&self, node: &NodeInfo) -> Vec<Uuid> {
        let snapshot = self.store.snapshot();
        let seen = self
            .backend
            .discover(node, &snapshot.configuration, &self.store.attachments());
        let outcomes = match seen.and_then(|seen| self.backend.release(&seen)) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::error!(
                    "Cannot release the datasets of node {}: {}",
                    node.number,
                    chain(&error)
                );
                return Vec::new();
            }
        };
        let (mut detached, mut lingering) = (Vec::new(), Vec::new());
        for (dataset, outcome) in outcomes {
            match outcome {
                Ok(Released::Kept) => tracing::info!(
                    dataset.id = %dataset,
                    "Dataset {dataset} stays attached to node {}: it is published or in use",
                    node.number
                ),
                Ok(Released::Lingering) => lingering.push(dataset),
                Ok(Released::Detached) => detached.push(dataset),
                Err(error) => tracing::warn!(
                    dataset.id = %dataset,
                    "Cannot release dataset {dataset} on node {}: {}",
                    node.number,
                    chain(&error)
                ),
            }
        }
        tracing::info!("Detached {} dataset(s) from node {}", detached.len(), node.number);
        if let Err(error) = self.store.forget_attachments(&detached, node.uuid) {
            tracing::error!(%error, "Node {} cannot record what it detached", node.number);
        }
        lingering
    }

    /// Returns those of the datasets whose loop device the kernel has not freed yet. Blocks.
    pub(crate) fn still_lingering(&self, datasets: Vec<Uuid>) -> Vec<Uuid> {
        let lingers = |dataset: &Uuid| self.backend.lingers(*dataset).unwrap_or(true);
        datasets.into_iter().filter(lingers).collect()
    }
}
