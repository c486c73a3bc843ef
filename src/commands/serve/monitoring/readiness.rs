//! Whether the plugin can be used now, and why not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::commands::serve::kubelet::RegistrationService;
use crate::flocker::cluster::Cluster;

/// Whether the plugin can be used now; clones share what they know.
#[derive(Clone)]
pub struct Readiness {
    served: Arc<AtomicBool>,
    shutdown: CancellationToken,
    registration: Option<RegistrationService>,
    cluster: Cluster,
}

impl Readiness {
    /// Makes the readiness of a plugin that serves nothing yet.
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

    /// Says that CSI is served from now on.
    pub fn serves(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// Returns why the plugin cannot be used now, a line each; none when it can.
    pub fn obstacles(&self) -> Vec<String> {
        let stage = if self.shutdown.is_cancelled() {
            Some("the plugin stops".to_owned())
        } else if self.served.load(Ordering::Relaxed) {
            None
        } else {
            Some("the plugin starts: CSI is not served yet".to_owned())
        };
        let kubelet = self.registration.as_ref().and_then(RegistrationService::obstacle);
        // It is asked at the start. Whoever counted as ready before it has answered would let an upgrade go on to the
        // next node, with an address at which nobody ever answers too.
        let flocker = (self.cluster.is_healthy() != Some(true)).then(|| self.cluster.health());
        [stage, kubelet, flocker].into_iter().flatten().collect()
    }
}
