//! Probes and metrics of the plugin over HTTP.

mod gauges;
mod http;
mod readiness;

pub(crate) use gauges::Gauges;
pub(crate) use http::Monitor;
pub(crate) use readiness::{Readiness, Sources};

use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;

use crate::node::NodeService;
use crate::telemetry::Metrics;

/// What is answered; clones share the state.
#[derive(Clone)]
pub(crate) struct Monitored {
    readiness: Readiness,
    metrics: Metrics,
    /// Set once CSI is served.
    gauges: Arc<OnceLock<Gauges>>,
}

impl Monitored {
    pub(crate) fn new(readiness: Readiness, metrics: Metrics) -> Self {
        Self {
            readiness,
            metrics,
            gauges: Arc::default(),
        }
    }

    /// Records that the plugin serves CSI from now on, with these parts.
    pub(crate) fn serves(&self, gauges: Gauges) {
        self.readiness
            .serves(gauges.node.as_ref().map(NodeService::conditions));
        // Said once.
        self.gauges.set(gauges).ok();
    }

    fn metrics(&self) -> String {
        let gauges = self.gauges.get().cloned();
        self.metrics
            .to_text(gauges.map(|gauges| Box::new(gauges) as Box<dyn Collector>))
    }
}
