//! The CSI Node service: what the plugin does on the machine where a volume is used.

mod census;
mod conditions;
mod lease_release;
pub(crate) mod lease_watch;
mod leftovers;
mod operations;
mod paths;
mod publish;
mod ready;
mod reference;
mod service;
mod stage;
mod stats;
mod unpublish;
mod unstage;

use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use uuid::Uuid;

pub use crate::host::TargetDirectory;
pub(crate) use conditions::NodeConditions;
pub use lease_watch::LeaseSettings;
pub use service::NodeService;

use crate::error::{Error, Result, Situation};
use crate::flocker::attach::Attach;
use crate::flocker::attach::Takeover;
use crate::flocker::cluster::Cluster;
use crate::flocker::node_identity::ThisNode;
use crate::flocker::provisioning::Provisioner;
use crate::host::mount::{MountWatch, UsageProbe};
use crate::host::{Host, HostSettings, PathGate, VolumeCensus};
use crate::operation::deadline::Deadline;
use crate::operation::{Context, Locks, Operations};
use crate::telemetry::{Latest, spawn_blocking};
use crate::volume::TopologyKey;
use operations::NodeOperation;

/// The settings of the node.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The directories of this machine's mounts, records and device nodes.
    pub host: HostSettings,
    /// The maximum number of volumes on this node; 0 leaves it to the orchestrator.
    pub max_volumes_per_node: i64,
    /// The segment that names this node; `None` where topology is off.
    pub topology: Option<TopologyKey>,
    /// Whether staging a volume that no controller attached takes it over from a node that is gone.
    pub takeover: Takeover,
    /// What is done about leases that are not as they should be.
    pub leases: LeaseSettings,
}

/// The state that the operations of this node share.
struct NodeCore {
    settings: NodeSettings,
    cluster: Cluster,
    attach: Attach,
    locks: Locks,
    this_node: ThisNode,
    operations: Operations<NodeOperation, ()>,
    mounts: MountWatch,
    usage: UsageProbe,
    paths: PathGate,
    /// Creates a dataset for a name on its first use; `None` where that is disabled.
    first_use: Option<Provisioner>,
    host: Mutex<Option<Arc<Host>>>,
    /// Why the state directory could not be opened the last time.
    refusal: watch::Sender<Option<String>>,
    /// The volumes of this node in figures, as they were counted last.
    census: Latest<Option<VolumeCensus>>,
    /// Whether the leases of what is staged have been looked at since the start, or Flocker did not answer then.
    first_look: watch::Sender<bool>,
}

/// Gives an operation the dataset that it works on, and what people call that volume, if it is staged here.
fn about(context: &Context, host: &Host, dataset: Uuid) {
    context.about(dataset);
    if let Some(labels) = host.volume_labels(dataset) {
        context.called(labels);
    }
}

impl NodeCore {
    fn new(
        settings: NodeSettings,
        cluster: Cluster,
        attach: Attach,
        locks: Locks,
        this_node: ThisNode,
        first_use: Option<Provisioner>,
    ) -> Self {
        let (health, metrics) = (cluster.clone(), cluster.metrics().clone());
        Self {
            settings,
            cluster,
            attach,
            locks,
            this_node,
            operations: Operations::new(Arc::new(move || health.health()), metrics),
            mounts: MountWatch::default(),
            usage: UsageProbe::default(),
            paths: PathGate::default(),
            first_use,
            host: Mutex::new(None),
            refusal: watch::Sender::new(None),
            census: Latest::default(),
            first_look: watch::Sender::new(false),
        }
    }

    /// Returns the host, which one process at a time may change.
    ///
    /// It is opened in a task of its own, so that a caller that stops waiting does not abandon it half-way.
    async fn host(self: &Arc<Self>) -> Result<Arc<Host>> {
        if let Ok(slot) = self.host.try_lock()
            && let Some(host) = &*slot
        {
            return Ok(Arc::clone(host));
        }
        let core = Arc::clone(self);
        let opened = tokio::spawn(async move { core.open_host().await }).await;
        let opened = opened.unwrap_or_else(|ended| Err(Error::task("reading the state directory", &ended)));
        self.refusal.send_replace(opened.as_ref().err().map(Error::chain));
        opened
    }

    /// As [`Self::host`], for a caller that must be answered by `deadline`.
    async fn host_by(self: &Arc<Self>, deadline: Deadline) -> Result<Arc<Host>> {
        let host = tokio::time::timeout_at(deadline.answer_by(), self.host()).await;
        host.unwrap_or_else(|_elapsed| {
            let text = format!(
                "the records in {} are still being read; try again",
                self.settings.host.state_dir.display()
            );
            Err(Error::new(Situation::Busy, text))
        })
    }

    /// The lock is held until the state directory is locked and every staged volume is pinned: no call is served
    /// before.
    async fn open_host(self: &Arc<Self>) -> Result<Arc<Host>> {
        let mut slot = self.host.lock().await;
        if let Some(host) = &*slot {
            return Ok(Arc::clone(host));
        }
        let settings = self.settings.clone();
        let opened = spawn_blocking(move || Host::open(&settings.host)).await;
        let (host, pending) =
            opened.map_err(|ended| Error::task("reading the state directory", &ended))??;
        let host = Arc::new(host);
        for staged in pending {
            lease_release::release_later(Arc::clone(self), Arc::clone(&host), staged);
        }
        leftovers::remove_in_background(self, &host);
        lease_watch::start(self, &host);
        *slot = Some(Arc::clone(&host));
        Ok(host)
    }
}
