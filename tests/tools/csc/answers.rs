//! The output of csc.

use std::collections::HashMap;

use csi_proto::v1::plugin_capability::Type as PluginKind;
use csi_proto::v1::volume_capability::AccessType;
use csi_proto::v1::{
    ControllerGetCapabilitiesResponse, ControllerPublishVolumeResponse, CreateVolumeResponse,
    GetCapacityResponse, GetPluginCapabilitiesResponse, GetPluginInfoResponse, ListVolumesResponse,
    NodeGetCapabilitiesResponse, NodeGetInfoResponse, NodeGetVolumeStatsResponse, ProbeResponse,
    ValidateVolumeCapabilitiesResponse, Volume, VolumeCapability, controller_service_capability,
    node_service_capability,
};
use prost::{DecodeError, Message};

use crate::commands::Rpc;
use crate::syntax::Build;

/// Returns what csc prints for an answer to a call about `operand`.
pub(crate) fn print(build: Build, rpc: Rpc, operand: &str, answer: &[u8]) -> Result<String, DecodeError> {
    Ok(match rpc {
        Rpc::PluginInfo => {
            let info = GetPluginInfoResponse::decode(answer)?;
            format!(
                "{:?}	{:?}{}
",
                info.name,
                info.vendor_version,
                pairs(&info.manifest)
            )
        }
        Rpc::PluginCapabilities => {
            let announced = GetPluginCapabilitiesResponse::decode(answer)?;
            let kinds = announced.capabilities.into_iter().filter_map(|it| it.r#type);
            kinds
                .map(|kind| match kind {
                    PluginKind::Service(service) => format!("{}\n", service.r#type().as_str_name()),
                    PluginKind::VolumeExpansion(expansion) => {
                        format!("{}\n", expansion.r#type().as_str_name())
                    }
                })
                .collect()
        }
        // csc fails on an answer without the field.
        Rpc::Probe => format!(
            "{}\n",
            ProbeResponse::decode(answer)?.ready.expect("ready is set")
        ),
        Rpc::CreateVolume => CreateVolumeResponse::decode(answer)?
            .volume
            .map(|it| volume(&it))
            .unwrap_or_default(),
        Rpc::ListVolumes => list(&ListVolumesResponse::decode(answer)?),
        Rpc::ControllerPublish => {
            let context = ControllerPublishVolumeResponse::decode(answer)?.publish_context;
            format!("{operand:?}{}\n", pairs(&context))
        }
        Rpc::Validate => validated(
            build,
            operand,
            &ValidateVolumeCapabilitiesResponse::decode(answer)?,
        ),
        Rpc::Capacity => format!("{}\n", GetCapacityResponse::decode(answer)?.available_capacity),
        Rpc::ControllerCapabilities => {
            let announced = ControllerGetCapabilitiesResponse::decode(answer)?.capabilities;
            let kinds = announced.into_iter().filter_map(|it| it.r#type);
            kinds
                .map(|controller_service_capability::Type::Rpc(rpc)| rpc.r#type().as_str_name())
                .map(kind)
                .collect()
        }
        Rpc::NodeCapabilities => {
            let announced = NodeGetCapabilitiesResponse::decode(answer)?.capabilities;
            let kinds = announced.into_iter().filter_map(|it| it.r#type);
            kinds
                .map(|node_service_capability::Type::Rpc(rpc)| rpc.r#type().as_str_name())
                .map(kind)
                .collect()
        }
        Rpc::NodeInfo => {
            let info = NodeGetInfoResponse::decode(answer)?;
            assert_eq!(info.accessible_topology, None, "the plugin announces no topology");
            format!(
                "{}\t{}\t(*csi.Topology)(nil)\n",
                info.node_id, info.max_volumes_per_node
            )
        }
        Rpc::Stats => {
            let usage = NodeGetVolumeStatsResponse::decode(answer)?.usage;
            let usage: Vec<_> = usage
                .iter()
                .map(|it| {
                    let unit = it.unit().as_str_name();
                    format!("{}\t{}\t{}\t{unit}\n", it.available, it.total, it.used)
                })
                .collect();
            let usage = usage.concat();
            let mut place = operand.split(':');
            let (id, path) = (place.next().unwrap_or_default(), place.next().unwrap_or_default());
            format!("{id}\t{path}\t{usage}")
        }
        Rpc::DeleteVolume
        | Rpc::ControllerUnpublish
        | Rpc::Stage
        | Rpc::Unstage
        | Rpc::NodePublish
        | Rpc::NodeUnpublish => format!("{operand}\n"),
        Rpc::CreateSnapshot
        | Rpc::DeleteSnapshot
        | Rpc::ListSnapshots
        | Rpc::ControllerExpand
        | Rpc::NodeExpand => panic!("the plugin offers no {rpc:?}"),
    })
}

/// Returns the pairs of a map, in an unspecified order.
fn pairs(map: &HashMap<String, String>) -> String {
    let pairs: Vec<_> = map
        .iter()
        .map(|(key, value)| format!("\t{key:?}={value:?}"))
        .collect();
    pairs.concat()
}

fn kind(name: &str) -> String {
    format!("&{{type:{name}}}\n")
}

pub(crate) fn volume(volume: &Volume) -> String {
    let context = pairs(&volume.volume_context);
    format!("{:?}\t{}{context}\n", volume.volume_id, volume.capacity_bytes)
}

fn list(answer: &ListVolumesResponse) -> String {
    let volumes = answer.entries.iter().filter_map(|entry| entry.volume.as_ref());
    let volumes: String = volumes.map(volume).collect();
    match answer.next_token.as_str() {
        "" => volumes,
        token => format!("{volumes}token={token:?}\n"),
    }
}

/// The confirmation is printed as the protobuf library of the build prints messages.
fn validated(build: Build, operand: &str, answer: &ValidateVolumeCapabilitiesResponse) -> String {
    let confirmed = answer.confirmed.as_ref().map_or("<nil>".to_owned(), |confirmed| {
        let capabilities = confirmed.volume_capabilities.iter();
        let texts: Vec<_> = capabilities.map(|it| capability(build, it)).collect();
        texts.join(" ")
    });
    match answer.message.as_str() {
        "" => format!("{operand:?}\t{confirmed}\n"),
        message => format!("{operand:?}\t{confirmed}\t{message:?}\n"),
    }
}

fn capability(build: Build, capability: &VolumeCapability) -> String {
    let (open, close) = match build {
        Build::Rexray => ("<", " >"),
        Build::Dell => ("{", "}"),
    };
    let access_type = match &capability.access_type {
        Some(AccessType::Mount(mount)) => {
            let mut fields = Vec::new();
            if !mount.fs_type.is_empty() {
                fields.push(format!("fs_type:{:?}", mount.fs_type));
            }
            fields.extend(
                mount
                    .mount_flags
                    .iter()
                    .map(|flag| format!("mount_flags:{flag:?}")),
            );
            format!("mount:{open}{}{close}", fields.join(" "))
        }
        Some(AccessType::Block(_)) => format!("block:{open}{close}"),
        None => String::new(),
    };
    let mode = capability.access_mode.as_ref().map_or(String::new(), |mode| {
        format!(" access_mode:{open}mode:{}{close}", mode.mode().as_str_name())
    });
    format!("volume_capabilities:{open}{access_type}{mode}{close}")
}
