//! The calls of Mesos, in either version of CSI.
//!
//! This module holds all differences between the versions on the wire; differences in paths are in
//! [`super::volume_manager`].

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use csi_proto::v0::{
    self, controller_client::ControllerClient as Controller0, identity_client::IdentityClient as Identity0,
    node_client::NodeClient as Node0,
};
use csi_proto::v1::{
    self, controller_client::ControllerClient as Controller1, identity_client::IdentityClient as Identity1,
    node_client::NodeClient as Node1,
};

use super::failure::Failure;
use super::rpc::{Calls, Connected};
use super::types::{Api, Capability, VolumeInfo};

/// A plugin as Mesos calls it.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) api: Api,
    pub(crate) calls: Calls,
}

/// What a node's plugin needs to use a volume.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) id: String,
    pub(crate) capability: Capability,
    pub(crate) publish_context: HashMap<String, String>,
    pub(crate) context: HashMap<String, String>,
    pub(crate) readonly: bool,
    /// Empty for a plugin without staging.
    pub(crate) staging: PathBuf,
    pub(crate) target: PathBuf,
}

/// The number of a capability, the same in both versions.
pub(crate) type Number = i32;

/// Collects the numbers of capabilities that name an RPC.
macro_rules! rpcs {
    ($version:ident, $kind:ident, $answer:expr) => {
        $answer
            .capabilities
            .into_iter()
            .filter_map(|capability| match capability.r#type? {
                $version::$kind::Type::Rpc(rpc) => Some(rpc.r#type),
                #[allow(unreachable_patterns, reason = "not every kind has further variants")]
                _ => None,
            })
            .collect()
    };
}

/// Makes a call in the plugin's version, and extracts the result from the answer.
macro_rules! call {
    ($self:ident.$how:ident($name:literal);
     $client0:ident.$rpc0:ident($request0:expr) => |$answer0:pat_param| $take0:expr;
     $client1:ident.$rpc1:ident($request1:expr) => |$answer1:pat_param| $take1:expr $(;)?) => {
        match $self.api {
            Api::V0 => {
                let request = $request0;
                let call = |to: Connected| {
                    let request = to.request(request.clone());
                    async move { $client0::new(to.channel).$rpc0(request).await }
                };
                $self.calls.$how($name, call).await.map(|$answer0| $take0)
            }
            Api::V1 => {
                let request = $request1;
                let call = |to: Connected| {
                    let request = to.request(request.clone());
                    async move { $client1::new(to.channel).$rpc1(request).await }
                };
                $self.calls.$how($name, call).await.map(|$answer1| $take1)
            }
        }
    };
}

impl Client {
    /// Checks whether the plugin answers; the answer itself is ignored.
    pub(crate) async fn probe(&self) -> Result<(), Failure> {
        call! { self.call("Probe");
            Identity0.probe(v0::ProbeRequest {}) => |_| ();
            Identity1.probe(v1::ProbeRequest {}) => |_| ();
        }
    }

    /// Returns whether the plugin offers the controller service.
    pub(crate) async fn offers_controller(&self) -> Result<bool, Failure> {
        call! { self.call("GetPluginCapabilities");
            Identity0.get_plugin_capabilities(v0::GetPluginCapabilitiesRequest {}) => |answer| {
                use v0::plugin_capability::{Service, Type, service::Type::ControllerService};
                let wanted = Type::Service(Service { r#type: ControllerService.into() });
                answer.capabilities.iter().any(|offered| offered.r#type.as_ref() == Some(&wanted))
            };
            Identity1.get_plugin_capabilities(v1::GetPluginCapabilitiesRequest {}) => |answer| {
                use v1::plugin_capability::{Service, Type, service::Type::ControllerService};
                let wanted = Type::Service(Service { r#type: ControllerService.into() });
                answer.capabilities.iter().any(|offered| offered.r#type.as_ref() == Some(&wanted))
            };
        }
    }

    /// Returns the plugin's name and version.
    pub(crate) async fn info(&self) -> Result<(String, String), Failure> {
        call! { self.call("GetPluginInfo");
            Identity0.get_plugin_info(v0::GetPluginInfoRequest {}) => |answer| (answer.name, answer.vendor_version);
            Identity1.get_plugin_info(v1::GetPluginInfoRequest {}) => |answer| (answer.name, answer.vendor_version);
        }
    }

    pub(crate) async fn controller_capabilities(&self) -> Result<BTreeSet<Number>, Failure> {
        call! { self.call("ControllerGetCapabilities");
            Controller0.controller_get_capabilities(v0::ControllerGetCapabilitiesRequest {})
                => |answer| rpcs!(v0, controller_service_capability, answer);
            Controller1.controller_get_capabilities(v1::ControllerGetCapabilitiesRequest {})
                => |answer| rpcs!(v1, controller_service_capability, answer);
        }
    }

    pub(crate) async fn node_capabilities(&self) -> Result<BTreeSet<Number>, Failure> {
        call! { self.call("NodeGetCapabilities");
            Node0.node_get_capabilities(v0::NodeGetCapabilitiesRequest {})
                => |answer| rpcs!(v0, node_service_capability, answer);
            Node1.node_get_capabilities(v1::NodeGetCapabilitiesRequest {})
                => |answer| rpcs!(v1, node_service_capability, answer);
        }
    }

    /// Returns the node's id; Mesos uses nothing else of the answer.
    pub(crate) async fn node_id(&self) -> Result<String, Failure> {
        call! { self.call("NodeGetInfo");
            Node0.node_get_id(v0::NodeGetIdRequest {}) => |answer| answer.node_id;
            Node1.node_get_info(v1::NodeGetInfoRequest {}) => |answer| answer.node_id;
        }
    }

    /// Returns all volumes; a token in the answer is ignored.
    pub(crate) async fn list_volumes(&self) -> Result<Vec<VolumeInfo>, Failure> {
        call! { self.call("ListVolumes");
            Controller0.list_volumes(v0::ListVolumesRequest::default())
                => |answer| answer.entries.into_iter().filter_map(|entry| entry.volume).map(Into::into).collect();
            Controller1.list_volumes(v1::ListVolumesRequest::default())
                => |answer| answer.entries.into_iter().filter_map(|entry| entry.volume).map(Into::into).collect();
        }
    }

    pub(crate) async fn capacity(
        &self,
        capability: &Capability,
        parameters: &HashMap<String, String>,
    ) -> Result<i64, Failure> {
        call! { self.call("GetCapacity");
            Controller0.get_capacity(v0::GetCapacityRequest {
                volume_capabilities: vec![capability.v0()],
                parameters: parameters.clone(),
                ..Default::default()
            }) => |answer| answer.available_capacity;
            Controller1.get_capacity(v1::GetCapacityRequest {
                volume_capabilities: vec![capability.v1()],
                parameters: parameters.clone(),
                ..Default::default()
            }) => |answer| answer.available_capacity;
        }
    }

    /// Creates a volume of exactly that size, and repeats the request until it succeeds.
    pub(crate) async fn create(
        &self,
        name: &str,
        bytes: i64,
        capability: &Capability,
        parameters: &HashMap<String, String>,
    ) -> Result<VolumeInfo, Failure> {
        let (required_bytes, limit_bytes) = (bytes, bytes);
        let created = call! { self.call_until_final("CreateVolume");
            Controller0.create_volume(v0::CreateVolumeRequest {
                name: name.to_owned(),
                capacity_range: Some(v0::CapacityRange { required_bytes, limit_bytes }),
                volume_capabilities: vec![capability.v0()],
                parameters: parameters.clone(),
                ..Default::default()
            }) => |answer| answer.volume.map(VolumeInfo::from);
            Controller1.create_volume(v1::CreateVolumeRequest {
                name: name.to_owned(),
                capacity_range: Some(v1::CapacityRange { required_bytes, limit_bytes }),
                volume_capabilities: vec![capability.v1()],
                parameters: parameters.clone(),
                ..Default::default()
            }) => |answer| answer.volume.map(VolumeInfo::from);
        }?;
        Ok(created.expect("an answer has a volume"))
    }

    pub(crate) async fn delete(&self, volume_id: &str) -> Result<(), Failure> {
        let volume_id = volume_id.to_owned();
        call! { self.call_until_final("DeleteVolume");
            Controller0.delete_volume(v0::DeleteVolumeRequest { volume_id, ..Default::default() }) => |_| ();
            Controller1.delete_volume(v1::DeleteVolumeRequest { volume_id, ..Default::default() }) => |_| ();
        }
    }

    /// Returns why a volume cannot be used as requested, if so.
    pub(crate) async fn validate(
        &self,
        volume: &VolumeInfo,
        capability: &Capability,
        parameters: &HashMap<String, String>,
    ) -> Result<Option<String>, Failure> {
        call! { self.call("ValidateVolumeCapabilities");
            // That version has no parameters to compare.
            Controller0.validate_volume_capabilities(v0::ValidateVolumeCapabilitiesRequest {
                volume_id: volume.id.clone(),
                volume_capabilities: vec![capability.v0()],
                volume_attributes: volume.context.clone(),
                ..Default::default()
            }) => |answer| (!answer.supported).then_some(answer.message);
            Controller1.validate_volume_capabilities(v1::ValidateVolumeCapabilitiesRequest {
                volume_id: volume.id.clone(),
                volume_capabilities: vec![capability.v1()],
                volume_context: volume.context.clone(),
                parameters: parameters.clone(),
                ..Default::default()
            }) => |answer| match answer.confirmed {
                None => Some(answer.message),
                Some(confirmed) if confirmed.volume_context != volume.context => {
                    Some("Mismatched volume context".to_owned())
                }
                Some(confirmed) if !confirmed.volume_capabilities.contains(&capability.v1()) => {
                    Some("Unsupported volume capability".to_owned())
                }
                Some(confirmed) if confirmed.parameters != *parameters => Some("Mismatched parameters".to_owned()),
                Some(_) => None,
            };
        }
    }

    /// Attaches a volume, and returns the publish context.
    pub(crate) async fn controller_publish(
        &self,
        usage: &Usage,
        node: &str,
    ) -> Result<HashMap<String, String>, Failure> {
        call! { self.call("ControllerPublishVolume");
            Controller0.controller_publish_volume(v0::ControllerPublishVolumeRequest {
                volume_id: usage.id.clone(),
                node_id: node.to_owned(),
                volume_capability: Some(usage.capability.v0()),
                readonly: usage.readonly,
                volume_attributes: usage.context.clone(),
                ..Default::default()
            }) => |answer| answer.publish_info;
            Controller1.controller_publish_volume(v1::ControllerPublishVolumeRequest {
                volume_id: usage.id.clone(),
                node_id: node.to_owned(),
                volume_capability: Some(usage.capability.v1()),
                readonly: usage.readonly,
                volume_context: usage.context.clone(),
                ..Default::default()
            }) => |answer| answer.publish_context;
        }
    }

    pub(crate) async fn controller_unpublish(&self, volume_id: &str, node: &str) -> Result<(), Failure> {
        let (volume_id, node_id) = (volume_id.to_owned(), node.to_owned());
        call! { self.call("ControllerUnpublishVolume");
            Controller0.controller_unpublish_volume(v0::ControllerUnpublishVolumeRequest {
                volume_id, node_id, ..Default::default()
            }) => |_| ();
            Controller1.controller_unpublish_volume(v1::ControllerUnpublishVolumeRequest {
                volume_id, node_id, ..Default::default()
            }) => |_| ();
        }
    }

    pub(crate) async fn stage(&self, usage: &Usage) -> Result<(), Failure> {
        call! { self.call("NodeStageVolume");
            Node0.node_stage_volume(v0::NodeStageVolumeRequest {
                volume_id: usage.id.clone(),
                publish_info: usage.publish_context.clone(),
                staging_target_path: text(&usage.staging),
                volume_capability: Some(usage.capability.v0()),
                volume_attributes: usage.context.clone(),
                ..Default::default()
            }) => |_| ();
            Node1.node_stage_volume(v1::NodeStageVolumeRequest {
                volume_id: usage.id.clone(),
                publish_context: usage.publish_context.clone(),
                staging_target_path: text(&usage.staging),
                volume_capability: Some(usage.capability.v1()),
                volume_context: usage.context.clone(),
                ..Default::default()
            }) => |_| ();
        }
    }

    pub(crate) async fn unstage(&self, usage: &Usage) -> Result<(), Failure> {
        let (volume_id, staging_target_path) = (usage.id.clone(), text(&usage.staging));
        call! { self.call("NodeUnstageVolume");
            Node0.node_unstage_volume(v0::NodeUnstageVolumeRequest { volume_id, staging_target_path }) => |_| ();
            Node1.node_unstage_volume(v1::NodeUnstageVolumeRequest { volume_id, staging_target_path }) => |_| ();
        }
    }

    pub(crate) async fn publish(&self, usage: &Usage) -> Result<(), Failure> {
        call! { self.call("NodePublishVolume");
            Node0.node_publish_volume(v0::NodePublishVolumeRequest {
                volume_id: usage.id.clone(),
                publish_info: usage.publish_context.clone(),
                staging_target_path: text(&usage.staging),
                target_path: text(&usage.target),
                volume_capability: Some(usage.capability.v0()),
                readonly: usage.readonly,
                volume_attributes: usage.context.clone(),
                ..Default::default()
            }) => |_| ();
            Node1.node_publish_volume(v1::NodePublishVolumeRequest {
                volume_id: usage.id.clone(),
                publish_context: usage.publish_context.clone(),
                staging_target_path: text(&usage.staging),
                target_path: text(&usage.target),
                volume_capability: Some(usage.capability.v1()),
                readonly: usage.readonly,
                volume_context: usage.context.clone(),
                ..Default::default()
            }) => |_| ();
        }
    }

    pub(crate) async fn unpublish(&self, usage: &Usage) -> Result<(), Failure> {
        let (volume_id, target_path) = (usage.id.clone(), text(&usage.target));
        call! { self.call("NodeUnpublishVolume");
            Node0.node_unpublish_volume(v0::NodeUnpublishVolumeRequest { volume_id, target_path }) => |_| ();
            Node1.node_unpublish_volume(v1::NodeUnpublishVolumeRequest { volume_id, target_path }) => |_| ();
        }
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
