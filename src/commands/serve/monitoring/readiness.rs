//! Whether the plugin can be used now, and why not.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::commands::serve::kubelet::RegistrationService;
use crate::flocker::cluster::Cluster;
use crate::node::NodeService;

/// Whether the plugin can be used now; clones share the state.
#[derive(Clone)]
pub(crate) struct Readiness {
    /// The node service that is served, if any; set once CSI is served.
    served: Arc<OnceLock<Option<NodeService>>>,
    shutdown: CancellationToken,
    registration: Option<RegistrationService>,
    cluster: Cluster,
}

impl Readiness {
    /// Creates the readiness of a plugin that does not serve yet.
    pub(crate) fn new(
        shutdown: CancellationToken,
        registration: Option<RegistrationService>,
        cluster: Cluster,
    ) -> Self {
        Self {
            served: Arc::default(),
            shutdown,
            registration,
            cluster,
        }
    }

    /// Records that the plugin serves CSI from now on, with this node service, if any.
    pub(crate) fn serves(&self, node: Option<NodeService>) {
        // Said once.
        self.served.set(node).ok();
    }

    /// Returns why the plugin cannot be used now, a line each; none when it can.
    pub(crate) fn obstacles(&self) -> Vec<String> {
        let served = self.served.get();
        let stage = if self.shutdown.is_cancelled() {
            Some("the plugin is stopping".to_owned())
        } else if served.is_none() {
            Some("the plugin is starting: it does not serve CSI yet".to_owned())
        } else {
            None
        };
        let paths = served.and_then(Option::as_ref).and_then(NodeService::obstacle);
        let kubelet = self.registration.as_ref().and_then(RegistrationService::obstacle);
        // Flocker is called at the start. A plugin that was ready before the first answer would let a rolling upgrade
        // continue to the next node even with an address at which no control service answers.
        let flocker = (self.cluster.is_healthy() != Some(true)).then(|| self.cluster.health());
        [stage, kubelet, flocker, paths].into_iter().flatten().collect()
    }
}
