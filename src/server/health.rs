//! The health service, `grpc.health.v1`.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// A part of the plugin with a health status of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The plugin as a whole, whose name in the health protocol is empty.
    Plugin,
    /// Identity, in both versions of CSI.
    Identity,
    /// Controller, in both versions.
    Controller,
    /// Node, in both versions.
    Node,
}

impl Part {
    const ALL: [Self; 4] = [Self::Plugin, Self::Identity, Self::Controller, Self::Node];

    /// Returns the names under which clients query it, those of newer services first.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Plugin => &[""],
            Self::Identity => &["csi.v1.Identity", "csi.v0.Identity"],
            Self::Controller => &["csi.v1.Controller", "csi.v0.Controller"],
            Self::Node => &["csi.v1.Node", "csi.v0.Node"],
        }
    }
}

/// The health of the plugin and its services; clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    services: Vec<Part>,
}

impl Health {
    /// Returns the health of a plugin with these services and Identity, all of them serving.
    pub async fn new(controller: bool, node: bool) -> Self {
        let is_served = |part: &Part| match part {
            Part::Plugin | Part::Identity => true,
            Part::Controller => controller,
            Part::Node => node,
        };
        let services = Part::ALL.into_iter().filter(is_served).collect();
        let health = Self {
            reporter: HealthReporter::new(),
            services,
        };
        for part in Part::ALL {
            health.set(part, true).await;
        }
        health
    }

    /// Sets whether a part serves; has no effect for a service that this process does not offer.
    pub async fn set(&self, part: Part, serving: bool) {
        if self.services.contains(&part) {
            let status = if serving {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            for name in part.names() {
                self.reporter.set_service_status(*name, status).await;
            }
        }
    }

    /// Sets every part to not serving, and ends the calls that watch them.
    pub(super) async fn close(mut self) {
        for name in self.services.into_iter().flat_map(Part::names) {
            self.reporter
                .set_service_status(*name, ServingStatus::NotServing)
                .await;
            self.reporter.clear_service_status(name).await;
        }
    }

    pub(super) fn server(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }
}
