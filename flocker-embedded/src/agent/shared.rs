//! What all agents share, and what happens before the first of them begins and after the last has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use tokio::sync::{AcquireError, Mutex, Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::plan::Step;
use crate::backend::{Backend, Discovery, Expected, Released, StepError};
use crate::cluster::Cluster;
use crate::error::chain;
use crate::faults::Faults;
use crate::options::NodeInfo;
use crate::storage_status::FailedSteps;
use crate::store::{Storage, Store};

/// Number of file systems that are created concurrently, by all agents together.
const FORMATTERS: usize = 2;
/// Number of other steps that are carried out concurrently, each on a thread of its own.
const WORKERS: usize = 8;

/// What all agents share.
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) backend: Arc<Backend>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) faults: Faults,
    pub(crate) failed_steps: FailedSteps,
    /// The machines that are off, and the eras of the nodes.
    machines: StdMutex<Machines>,
    /// Held from observing to reporting, so that no report is older than the one it replaces.
    pub(super) observing: Mutex<()>,
    formatters: Semaphore,
    workers: Semaphore,
}

#[derive(Debug, Default)]
struct Machines {
    off: BTreeSet<Uuid>,
    eras: BTreeMap<Uuid, Vec<Uuid>>,
}

impl Shared {
    /// `eras` are those that each node has at the start.
    pub(crate) fn new(
        store: Arc<Store>,
        backend: Arc<Backend>,
        faults: Faults,
        eras: BTreeMap<Uuid, Vec<Uuid>>,
    ) -> Self {
        Self {
            store,
            backend,
            cluster: Arc::new(Cluster::new()),
            faults,
            failed_steps: FailedSteps::default(),
            machines: StdMutex::new(Machines {
                off: BTreeSet::new(),
                eras,
            }),
            observing: Mutex::new(()),
            formatters: Semaphore::new(FORMATTERS),
            workers: Semaphore::new(WORKERS),
        }
    }

    /// Returns the size of every volume that exists or is configured.
    pub(crate) fn sizes(&self) -> BTreeMap<Uuid, u64> {
        let mut sizes = self.backend.volumes().sizes();
        let snapshot = self.store.snapshot();
        let live = snapshot
            .configuration
            .datasets
            .iter()
            .filter(|(_, dataset)| !dataset.deleted);
        for (id, dataset) in live {
            sizes.entry(*id).or_insert(dataset.size());
        }
        sizes
    }

    /// Waits until a step may begin. It ends when the permit is dropped.
    pub(super) async fn acquire_permit(&self, step: &Step) -> Result<SemaphorePermit<'_>, AcquireError> {
        let semaphore = if matches!(step, Step::Format(_)) {
            &self.formatters
        } else {
            &self.workers
        };
        semaphore.acquire().await
    }

    /// Returns the eras that a node has.
    pub(crate) fn eras(&self, node: Uuid) -> Vec<Uuid> {
        self.machines().eras.get(&node).cloned().unwrap_or_default()
    }

    /// Returns the nodes whose machine is known to be off.
    pub(super) fn dead(&self) -> BTreeSet<Uuid> {
        if self.faults.read(|plan| plan.dead_nodes_known) {
            self.machines().off.clone()
        } else {
            BTreeSet::new()
        }
    }

    /// Cuts the power of a node's machine. Blocks.
    pub(super) fn cut_power(&self, node: &NodeInfo) {
        let outcomes = self.backend.cut_power(node, &self.store.attachments());
        for (dataset, outcome) in outcomes {
            if let Err(error) = outcome {
                tracing::warn!(
                    dataset.id = %dataset,
                    "The machine of node {} is off, but its dataset {dataset} is not available to other nodes: {}",
                    node.number,
                    chain(&error)
                );
            }
        }
        self.machines().off.insert(node.uuid);
        tracing::info!("The machine of node {} is off", node.number);
    }

    /// Starts the machine of a node, with a new era. Blocks.
    pub(super) fn boot(&self, node: &NodeInfo, era: Uuid) {
        let mut machines = self.machines();
        machines.off.remove(&node.uuid);
        machines.eras.insert(node.uuid, vec![era]);
        drop(machines);
        let outcomes = self.backend.boot(node, &self.store.attachments());
        for (dataset, outcome) in outcomes {
            if let Err(error) = outcome {
                tracing::warn!(
                    dataset.id = %dataset,
                    "The machine of node {} has started, but its dataset {dataset} has no new loop device: {}",
                    node.number,
                    chain(&error)
                );
            }
        }
        tracing::info!(
            "The machine of node {} has started; its era is {era}",
            node.number
        );
    }

    fn machines(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the backing file of a dataset has to be.
    pub(super) fn expected(&self, dataset: Uuid) -> Expected {
        let snapshot = self.store.snapshot();
        let configured = snapshot.configuration.datasets.get(&dataset);
        let file_system = match self.store.storage_of(dataset) {
            Some(Storage::Formatted { file_system }) => file_system,
            _ => None,
        };
        Expected {
            size: configured.map_or(0, |dataset| dataset.size()),
            file_system,
        }
    }

    /// Assigns attached datasets without a record of their node to a node. Blocks.
    pub(crate) fn adopt(&self, nodes: &[NodeInfo]) {
        let snapshot = self.store.snapshot();
        let found =
            self.backend
                .unrecorded_attachments(nodes, &snapshot.configuration, &self.store.attachments());
        let adopted = found.and_then(|owners| {
            for (dataset, node) in &owners {
                tracing::info!(dataset.id = %dataset, "Dataset {dataset} is attached without a record of its node; it is assigned to node {node}");
            }
            self.store.record_attachments(owners).map_err(StepError::State)
        });
        if let Err(error) = adopted {
            tracing::error!("Cannot adopt loop devices of an earlier run: {}", chain(&error));
        }
    }

    /// Logs which volumes belong to no dataset. Nothing is done to them.
    pub(crate) fn report_unknown_volumes(&self) {
        let snapshot = self.store.snapshot();
        let files = self.backend.volumes().files().into_keys();
        for file in files.filter(|id| !snapshot.configuration.datasets.contains_key(id)) {
            tracing::warn!(
                dataset.id = %file,
                "A volume exists for dataset {file}, which the state file does not have; it is left as it is"
            );
        }
    }

    /// Unmounts and detaches the datasets of a node that no process uses, and returns those whose device the kernel
    /// has not freed yet. Blocks.
    pub(crate) fn release(&self, node: &NodeInfo) -> Vec<Uuid> {
        let snapshot = self.store.snapshot();
        let discovered = self.backend.discover(
            node,
            &snapshot.configuration,
            || self.store.storage(),
            &self.dead(),
        );
        let released = discovered.and_then(|Discovery { seen, failures }| {
            let mut outcomes = self.backend.release(&seen)?;
            outcomes.extend(failures.into_iter().map(|(dataset, error)| (dataset, Err(error))));
            Ok(outcomes)
        });
        let outcomes = match released {
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
            tracing::error!(%error, "Cannot record which datasets node {} has detached", node.number);
        }
        lingering
    }

    /// Returns those of the datasets whose loop device the kernel has not freed yet. Blocks.
    pub(crate) fn still_lingering(&self, datasets: Vec<Uuid>) -> Vec<Uuid> {
        let lingers = |dataset: &Uuid| self.backend.lingers(*dataset).unwrap_or(true);
        datasets.into_iter().filter(lingers).collect()
    }
}
