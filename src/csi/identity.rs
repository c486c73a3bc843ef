//! The Identity service: the plugin's name, version and capabilities.

use csi_proto::v1::identity_server::Identity;
use csi_proto::v1::plugin_capability::{Service, Type, service};
use csi_proto::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse,
};
use tonic::{Request, Response, Status};

use crate::telemetry::VERSION;
use crate::volume::Topology;

/// Answers for the plugin as a whole; every process answers alike, in every mode.
///
/// Nothing here calls Flocker. Mesos abandons a plugin whose `Probe` fails once, and Kubernetes restarts one that is
/// not ready; a control service that is down is no reason for either.
#[derive(Clone, Debug)]
pub(crate) struct IdentityService {
    driver_name: String,
    topology: Topology,
}

impl IdentityService {
    /// Makes the service of the driver with that name.
    pub(crate) fn new(driver_name: impl Into<String>, topology: Topology) -> Self {
        Self {
            driver_name: driver_name.into(),
            topology,
        }
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.driver_name.clone(),
            vendor_version: VERSION.to_owned(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let topology = match self.topology {
            Topology::Off => None,
            // Of volumes it says no more than that nodes may differ: an answer without topology is accessible everywhere.
            Topology::Hint => Some(service::Type::VolumeAccessibilityConstraints),
        };
        let announced = [service::Type::ControllerService].into_iter().chain(topology);
        let capability = |service: service::Type| PluginCapability {
            r#type: Some(Type::Service(Service {
                r#type: service.into(),
            })),
        };
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: announced.map(capability).collect(),
        }))
    }

    async fn probe(&self, _request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        // A process with an invalid configuration never starts to serve, so a process that answers is ready.
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_plugin_reports_its_name_and_version_and_is_ready() {
        let identity = IdentityService::new("flocker.csi.clusterhq.com", Topology::Off);
        let info = identity
            .get_plugin_info(Request::new(GetPluginInfoRequest {}))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(info.name, "flocker.csi.clusterhq.com");
        assert_eq!(info.vendor_version, VERSION);
        let probe = identity
            .probe(Request::new(ProbeRequest {}))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(probe.ready, Some(true));
    }

    #[tokio::test]
    async fn topology_is_announced_only_where_it_is_on() {
        use service::Type::{ControllerService, VolumeAccessibilityConstraints};
        for (topology, expected) in [
            (Topology::Off, vec![ControllerService]),
            (
                Topology::Hint,
                vec![ControllerService, VolumeAccessibilityConstraints],
            ),
        ] {
            let identity = IdentityService::new("flocker.csi.clusterhq.com", topology);
            let request = Request::new(GetPluginCapabilitiesRequest {});
            let answer = identity.get_plugin_capabilities(request).await.unwrap();
            let capabilities: Vec<_> = expected
                .into_iter()
                .map(|service| PluginCapability {
                    r#type: Some(Type::Service(Service {
                        r#type: service.into(),
                    })),
                })
                .collect();
            assert_eq!(answer.into_inner().capabilities, capabilities);
        }
    }
}
