//! The requests that csc sends for a command line.

use csi_proto::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use csi_proto::v1::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerPublishVolumeRequest,
    ControllerUnpublishVolumeRequest, CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest,
    DeleteVolumeRequest, GetCapacityRequest, ListSnapshotsRequest, ListVolumesRequest,
    NodeExpandVolumeRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, ValidateVolumeCapabilitiesRequest,
    VolumeContentSource,
};
use prost::Message;

use crate::commands::Rpc;
use crate::syntax::Invocation;

/// Returns the path of an RPC.
pub(crate) fn path(rpc: Rpc) -> &'static str {
    match rpc {
        Rpc::PluginInfo => "/csi.v1.Identity/GetPluginInfo",
        Rpc::PluginCapabilities => "/csi.v1.Identity/GetPluginCapabilities",
        Rpc::Probe => "/csi.v1.Identity/Probe",
        Rpc::CreateVolume => "/csi.v1.Controller/CreateVolume",
        Rpc::DeleteVolume => "/csi.v1.Controller/DeleteVolume",
        Rpc::ControllerPublish => "/csi.v1.Controller/ControllerPublishVolume",
        Rpc::ControllerUnpublish => "/csi.v1.Controller/ControllerUnpublishVolume",
        Rpc::ListVolumes => "/csi.v1.Controller/ListVolumes",
        Rpc::Validate => "/csi.v1.Controller/ValidateVolumeCapabilities",
        Rpc::Capacity => "/csi.v1.Controller/GetCapacity",
        Rpc::ControllerCapabilities => "/csi.v1.Controller/ControllerGetCapabilities",
        Rpc::CreateSnapshot => "/csi.v1.Controller/CreateSnapshot",
        Rpc::DeleteSnapshot => "/csi.v1.Controller/DeleteSnapshot",
        Rpc::ListSnapshots => "/csi.v1.Controller/ListSnapshots",
        Rpc::ControllerExpand => "/csi.v1.Controller/ControllerExpandVolume",
        Rpc::NodeInfo => "/csi.v1.Node/NodeGetInfo",
        Rpc::NodeCapabilities => "/csi.v1.Node/NodeGetCapabilities",
        Rpc::Stage => "/csi.v1.Node/NodeStageVolume",
        Rpc::Unstage => "/csi.v1.Node/NodeUnstageVolume",
        Rpc::NodePublish => "/csi.v1.Node/NodePublishVolume",
        Rpc::NodeUnpublish => "/csi.v1.Node/NodeUnpublishVolume",
        Rpc::Stats => "/csi.v1.Node/NodeGetVolumeStats",
        Rpc::NodeExpand => "/csi.v1.Node/NodeExpandVolume",
    }
}

/// Returns the messages of a command, each with its operand: one for each operand, or one without.
pub(crate) fn messages(call: &Invocation) -> Vec<(String, Vec<u8>)> {
    match (call.rpc, call.operands.as_slice()) {
        (Rpc::NodeExpand, [volume, _path]) => vec![(volume.clone(), message(call, volume))],
        (_, []) => vec![(String::new(), message(call, ""))],
        (_, operands) => operands
            .iter()
            .map(|operand| (operand.clone(), message(call, operand)))
            .collect(),
    }
}

fn message(call: &Invocation, operand: &str) -> Vec<u8> {
    let id = operand.to_owned();
    let capability = call.capabilities().into_iter().next();
    match call.rpc {
        Rpc::PluginInfo
        | Rpc::PluginCapabilities
        | Rpc::Probe
        | Rpc::ControllerCapabilities
        | Rpc::NodeInfo
        | Rpc::NodeCapabilities => Vec::new(),
        Rpc::CreateVolume => CreateVolumeRequest {
            name: id,
            capacity_range: range(call),
            volume_capabilities: call.capabilities(),
            parameters: call.pairs("params"),
            volume_content_source: source(call),
            ..Default::default()
        }
        .encode_to_vec(),
        Rpc::DeleteVolume => DeleteVolumeRequest {
            volume_id: id,
            ..Default::default()
        }
        .encode_to_vec(),
        Rpc::ControllerPublish => ControllerPublishVolumeRequest {
            volume_id: id,
            node_id: call.string("node-id"),
            volume_capability: capability,
            readonly: call.switch("read-only"),
            volume_context: call.pairs("vol-context"),
            ..Default::default()
        }
        .encode_to_vec(),
        Rpc::ControllerUnpublish => ControllerUnpublishVolumeRequest {
            volume_id: id,
            node_id: call.string("node-id"),
            ..Default::default()
        }
        .encode_to_vec(),
        Rpc::ListVolumes => ListVolumesRequest {
            max_entries: max_entries(call),
            starting_token: call.string("starting-token"),
        }
        .encode_to_vec(),
        Rpc::Validate => ValidateVolumeCapabilitiesRequest {
            volume_id: id,
            volume_context: call.pairs("vol-context"),
            volume_capabilities: call.capabilities(),
            parameters: call.pairs("params"),
            ..Default::default()
        }
        .encode_to_vec(),
        Rpc::Capacity => GetCapacityRequest {
            volume_capabilities: call.capabilities(),
            parameters: call.pairs("params"),
            accessible_topology: None,
        }
        .encode_to_vec(),
        Rpc::CreateSnapshot | Rpc::DeleteSnapshot | Rpc::ListSnapshots => of_snapshots(call, id),
        Rpc::ControllerExpand => ControllerExpandVolumeRequest {
            volume_id: id,
            capacity_range: range(call),
            volume_capability: capability,
            ..Default::default()
        }
        .encode_to_vec(),
        Rpc::Stage | Rpc::Unstage | Rpc::NodePublish | Rpc::NodeUnpublish | Rpc::Stats | Rpc::NodeExpand => {
            of_a_node(call, id)
        }
    }
}

fn of_snapshots(call: &Invocation, operand: String) -> Vec<u8> {
    match call.rpc {
        Rpc::CreateSnapshot => CreateSnapshotRequest {
            name: operand,
            source_volume_id: call.string("source-volume"),
            parameters: call.pairs("params"),
            ..Default::default()
        }
        .encode_to_vec(),
        Rpc::DeleteSnapshot => DeleteSnapshotRequest {
            snapshot_id: operand,
            ..Default::default()
        }
        .encode_to_vec(),
        _ => ListSnapshotsRequest {
            max_entries: max_entries(call),
            starting_token: call.string("starting-token"),
            source_volume_id: call.string("source-volume-id"),
            snapshot_id: call.string("snapshot-id"),
            ..Default::default()
        }
        .encode_to_vec(),
    }
}

fn of_a_node(call: &Invocation, id: String) -> Vec<u8> {
    let capability = call.capabilities().into_iter().next();
    match call.rpc {
        Rpc::Stage => NodeStageVolumeRequest {
            volume_id: id,
            publish_context: call.pairs("pub-context"),
            staging_target_path: call.string("staging-target-path"),
            volume_capability: capability,
            volume_context: call.pairs("vol-context"),
            ..Default::default()
        }
        .encode_to_vec(),
        Rpc::Unstage => NodeUnstageVolumeRequest {
            volume_id: id,
            staging_target_path: call.string("staging-target-path"),
        }
        .encode_to_vec(),
        Rpc::NodePublish => NodePublishVolumeRequest {
            volume_id: id,
            publish_context: call.pairs("pub-context"),
            staging_target_path: call.string("staging-target-path"),
            target_path: call.string("target-path"),
            volume_capability: capability,
            readonly: call.switch("read-only"),
            volume_context: call.pairs("vol-context"),
            ..Default::default()
        }
        .encode_to_vec(),
        Rpc::NodeUnpublish => NodeUnpublishVolumeRequest {
            volume_id: id,
            target_path: call.string("target-path"),
        }
        .encode_to_vec(),
        Rpc::Stats => {
            let mut parts = id.split(':').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            NodeGetVolumeStatsRequest {
                volume_id: next(),
                volume_path: next(),
                staging_target_path: next(),
            }
            .encode_to_vec()
        }
        _ => NodeExpandVolumeRequest {
            volume_id: id,
            volume_path: call.operands.last().cloned().unwrap_or_default(),
            capacity_range: range(call),
            staging_target_path: call.string("staging-target-path"),
            ..Default::default()
        }
        .encode_to_vec(),
    }
}

fn range(call: &Invocation) -> Option<CapacityRange> {
    let (required_bytes, limit_bytes) = (call.number("req-bytes"), call.number("lim-bytes"));
    (required_bytes > 0 || limit_bytes > 0).then_some(CapacityRange {
        required_bytes,
        limit_bytes,
    })
}

fn source(call: &Invocation) -> Option<VolumeContentSource> {
    let volume = call.text("source-volume").map(|id| {
        Type::Volume(VolumeSource {
            volume_id: id.to_owned(),
        })
    });
    let snapshot = call.text("source-snapshot").map(|id| {
        Type::Snapshot(SnapshotSource {
            snapshot_id: id.to_owned(),
        })
    });
    volume
        .or(snapshot)
        .map(|source| VolumeContentSource { r#type: Some(source) })
}

fn max_entries(call: &Invocation) -> i32 {
    i32::try_from(call.number("max-entries")).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::syntax::Build;

    #[derive(Deserialize)]
    struct Recording {
        client: String,
        command: String,
        calls: Vec<Recorded>,
    }

    #[derive(Deserialize)]
    struct Recorded {
        path: String,
        message: String,
    }

    /// Encodes a recorded message again with this library: encoders differ in the order of fields.
    fn encoded_here(rpc: Rpc, message: &[u8]) -> Vec<u8> {
        fn again<T: Message + Default>(message: &[u8]) -> Vec<u8> {
            T::decode(message).unwrap().encode_to_vec()
        }
        match rpc {
            Rpc::CreateVolume => again::<CreateVolumeRequest>(message),
            Rpc::Validate => again::<ValidateVolumeCapabilitiesRequest>(message),
            Rpc::ControllerPublish => again::<ControllerPublishVolumeRequest>(message),
            Rpc::Stage => again::<NodeStageVolumeRequest>(message),
            Rpc::NodePublish => again::<NodePublishVolumeRequest>(message),
            _ => message.to_vec(),
        }
    }

    fn unhex(digits: &str) -> Vec<u8> {
        let bytes = (0..digits.len()).step_by(2);
        bytes
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn requests_equal_those_that_the_real_builds_sent() {
        let mut compared = 0;
        for line in include_str!("../../data/client-streams.jsonl").lines() {
            let recording: Recording = serde_json::from_str(line).unwrap();
            let build = match recording.client.as_str() {
                client if client.starts_with("csc rexray") => Build::Rexray,
                client if client.starts_with("csc dell") => Build::Dell,
                _ => continue,
            };
            let words: Vec<_> = recording.command.split_whitespace().skip(1).collect();
            let call = Invocation::parse(build, &words).unwrap();
            let sent: Vec<_> = messages(&call)
                .iter()
                .map(|(_, message)| (path(call.rpc).to_owned(), message.clone()))
                .collect();
            let expected = recording.calls.into_iter();
            let expected = expected.map(|it| (it.path, encoded_here(call.rpc, &unhex(&it.message))));
            assert_eq!(sent, expected.collect::<Vec<_>>(), "{}", recording.command);
            compared += 1;
        }
        assert_eq!(compared, 43, "recorded command lines of csc");
    }
}
