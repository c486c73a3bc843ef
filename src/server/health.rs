//! The health service, `grpc.health.v1`.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// The health of services; clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    names: Vec<&'static str>,
}

impl Health {
    /// Returns the health of the services with these names, all of them serving.
    pub(crate) async fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        let health = Self {
            reporter: HealthReporter::new(),
            names: names.into_iter().collect(),
        };
        health.set(&health.names, true).await;
        health
    }

    /// Says whether these services serve; what is not offered is left out.
    pub async fn set(&self, names: &[&'static str], serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for name in names.iter().filter(|name| self.names.contains(name)) {
            self.reporter.set_service_status(*name, status).await;
        }
    }

    /// Sets every service to not serving, and ends the calls that watch them.
    pub(crate) async fn close(mut self) {
        for name in self.names {
            self.reporter
                .set_service_status(name, ServingStatus::NotServing)
                .await;
            self.reporter.clear_service_status(name).await;
        }
    }

    /// Returns the service that answers.
    pub(crate) fn server(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }
}
