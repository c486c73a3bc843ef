//! The Identity service, which differs between the versions only in names.

use csi_proto::v0::identity_server::Identity;
use csi_proto::v0::plugin_capability::{Service, Type, service};
use csi_proto::v0::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse,
};
use csi_proto::v1;
use tonic::{Request, Response, Status};

use super::Facade;

#[tonic::async_trait]
impl<S: v1::identity_server::Identity> Identity for Facade<S> {
    async fn get_plugin_info(
        &self,
        request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        let request = request.map(|GetPluginInfoRequest {}| v1::GetPluginInfoRequest {});
        let answer = self.v1.get_plugin_info(request).await?;
        Ok(answer.map(|info| GetPluginInfoResponse {
            name: info.name,
            vendor_version: info.vendor_version,
            manifest: info.manifest,
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let request = request.map(|GetPluginCapabilitiesRequest {}| v1::GetPluginCapabilitiesRequest {});
        let answer = self.v1.get_plugin_capabilities(request).await?;
        Ok(answer.map(|answer| GetPluginCapabilitiesResponse {
            capabilities: answer
                .capabilities
                .into_iter()
                .filter_map(translate_capability)
                .collect(),
        }))
    }

    async fn probe(&self, request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let answer = self
            .v1
            .probe(request.map(|ProbeRequest {}| v1::ProbeRequest {}))
            .await?;
        Ok(answer.map(|answer| ProbeResponse { ready: answer.ready }))
    }
}

/// Translates a capability; returns `None` for one that this version does not have. The numbers are the same.
fn translate_capability(capability: v1::PluginCapability) -> Option<PluginCapability> {
    let v1::plugin_capability::Type::Service(service) = capability.r#type? else {
        return None;
    };
    let number = service::Type::try_from(service.r#type).ok()?;
    Some(PluginCapability {
        r#type: Some(Type::Service(Service {
            r#type: number.into(),
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_of_later_versions_are_left_out() {
        use v1::plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
        let service = |service: service::Type| {
            Type::Service(Service {
                r#type: service.into(),
            })
        };
        let expansion = Type::VolumeExpansion(VolumeExpansion {
            r#type: volume_expansion::Type::Online.into(),
        });
        let number = |kind: Type| {
            let translated = translate_capability(v1::PluginCapability { r#type: Some(kind) })?;
            let super::Type::Service(service) = translated.r#type.unwrap();
            Some(service.r#type)
        };
        assert_eq!(number(service(service::Type::ControllerService)), Some(1));
        assert_eq!(number(service(service::Type::GroupControllerService)), None);
        assert_eq!(number(expansion), None);
    }
}
