//! Probes and metrics of the plugin over HTTP.

mod gauges;
mod readiness;
mod volumes;

pub(crate) use gauges::Gauges;
pub(crate) use readiness::{Readiness, Sources};

use std::sync::{Arc, OnceLock};

use crate::commands::http::{Page, Pages};
use crate::commands::storage_metrics::StorageMetrics;
use crate::node::NodeService;
use crate::telemetry::Metrics;

/// What is answered; clones share the state.
#[derive(Clone)]
pub(crate) struct Monitored {
    readiness: Readiness,
    metrics: Metrics,
    /// Set once CSI is served.
    gauges: Arc<OnceLock<Gauges>>,
    /// Of the Flocker in the same process.
    storage: Option<StorageMetrics>,
}

impl Monitored {
    pub(crate) fn new(readiness: Readiness, metrics: Metrics, storage: Option<StorageMetrics>) -> Self {
        Self {
            readiness,
            metrics,
            gauges: Arc::default(),
            storage,
        }
    }

    /// Records that the plugin serves CSI from now on, with these parts.
    pub(crate) fn serves(&self, gauges: Gauges) {
        self.readiness
            .serves(gauges.node.as_ref().map(NodeService::conditions));
        // Said once.
        self.gauges.set(gauges).ok();
    }

    async fn metrics(&self) -> String {
        let mut looked_up = Vec::new();
        if let Some(gauges) = self.gauges.get() {
            looked_up.push(gauges.look_up().await);
        }
        if let Some(storage) = &self.storage {
            looked_up.extend(storage.look_up().await);
        }
        self.metrics.to_text(looked_up)
    }

    fn ready(&self) -> Page {
        let checks = self.readiness.checks();
        let lines = checks.iter().map(|check| format!("{check}\n"));
        let lines = lines.collect::<String>();
        if self.readiness.is_ready(&checks) {
            Page::Yes(format!("ready\n{lines}"))
        } else {
            Page::No(format!("not ready\n{lines}"))
        }
    }
}

impl Pages for Monitored {
    const PATHS: &'static [&'static str] = &["/healthz", "/readyz", "/metrics"];

    async fn page(&self, path: &str) -> Page {
        match path {
            "/metrics" => Page::Metrics(self.metrics().await),
            "/readyz" => self.ready(),
            _ => match self.readiness.needs_restart() {
                None => Page::Yes("ok\n".to_owned()),
                Some(fault) => Page::No(fault + "\n"),
            },
        }
    }
}
