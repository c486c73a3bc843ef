//! Whether the plugin can be used now, and why not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::commands::serve::kubelet::RegistrationService;
use crate::flocker::cluster::Cluster;

/// Whether the plugin can be used now; clones share the state.
#[derive(Clone)]
pub struct Readiness {
    served: Arc<AtomicBool>,
    shutdown: CancellationToken,
    registration: Option<RegistrationService>,
    cluster: Cluster,
}

impl Readiness {
    /// Creates the readiness of a plugin that does not serve yet.
    pub fn new(
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

    /// Records that the plugin serves CSI from now on.
    pub fn serves(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// Returns why the plugin cannot be used now, a line each; none when it can.
    pub fn obstacles(&self) -> Vec<String> {
        let stage = if self.shutdown.is_cancelled() {
            Some("the plugin is stopping".to_owned())
        } else if self.served.load(Ordering::Relaxed) {
            None
        } else {
            Some("the plugin is starting: it does not serve CSI yet".to_owned())
        };
        let kubelet = self.registration.as_ref().and_then(RegistrationService::obstacle);
        // Flocker is called at the start. A plugin that was ready before the first answer would let a rolling upgrade
        // continue to the next node even with an address at which no control service answers.
        let flocker = (self.cluster.is_healthy() != Some(true)).then(|| self.cluster.health());
        [stage, kubelet, flocker].into_iter().flatten().collect()
    }
}
