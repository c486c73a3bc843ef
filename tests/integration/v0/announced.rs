//! The answers that change nothing.

use csi_proto::v0::controller_service_capability::Type as ControllerKind;
use csi_proto::v0::node_service_capability::Type as NodeKind;
use csi_proto::v0::plugin_capability::Type as PluginKind;
use csi_proto::v0::volume_capability::access_mode::Mode;
use csi_proto::v0::{
    ControllerGetCapabilitiesRequest, CreateSnapshotRequest, DeleteSnapshotRequest, GetCapacityRequest,
    GetPluginCapabilitiesRequest, GetPluginInfoRequest, ListSnapshotsRequest, ListVolumesRequest,
    NodeGetCapabilitiesRequest, NodeGetIdRequest, NodeGetInfoRequest, ProbeRequest,
    ValidateVolumeCapabilitiesRequest, VolumeCapability,
};
use flocker_csi::config;
use flocker_csi::flocker::provisioning::Pool;
use tonic::Code;

use super::{Old, SMALLEST, capability, to_create};
use crate::node::{Fixture, assert_refused, unknown_id};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

#[test]
fn the_plugin_reports_in_v0_its_name_and_that_it_is_ready() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let mut identity = Old::beside(fixture.csi()).identity();
        let info = identity.get_plugin_info(GetPluginInfoRequest {}).await.unwrap();
        let info = info.into_inner();
        assert_eq!(
            (info.name.as_str(), info.vendor_version.as_str()),
            ("flocker.csi.clusterhq.com", env!("CARGO_PKG_VERSION"))
        );
        let probe = identity.probe(ProbeRequest {}).await.unwrap();
        assert_eq!(probe.into_inner().ready, Some(true));
    });
}

#[test]
fn capabilities_announced_in_v0_have_the_numbers_of_v0() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let old = Old::beside(fixture.csi());
        let plugin = old
            .identity()
            .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
            .await
            .unwrap();
        let plugin: Vec<_> = plugin
            .into_inner()
            .capabilities
            .into_iter()
            .map(|capability| match capability.r#type.unwrap() {
                PluginKind::Service(service) => service.r#type,
            })
            .collect();
        assert_eq!(plugin, [1], "CONTROLLER_SERVICE");
        let controller = old
            .controller()
            .controller_get_capabilities(ControllerGetCapabilitiesRequest {})
            .await
            .unwrap();
        let mut controller: Vec<_> = controller
            .into_inner()
            .capabilities
            .into_iter()
            .map(|capability| match capability.r#type.unwrap() {
                ControllerKind::Rpc(rpc) => rpc.r#type,
            })
            .collect();
        controller.sort_unstable();
        assert_eq!(
            controller,
            [1, 2, 3, 4],
            "CREATE_DELETE_VOLUME, PUBLISH_UNPUBLISH_VOLUME, LIST_VOLUMES, GET_CAPACITY"
        );
        let node = old
            .node()
            .node_get_capabilities(NodeGetCapabilitiesRequest {})
            .await
            .unwrap();
        let node: Vec<_> = node
            .into_inner()
            .capabilities
            .into_iter()
            .map(|capability| match capability.r#type.unwrap() {
                NodeKind::Rpc(rpc) => rpc.r#type,
            })
            .collect();
        assert_eq!(node, [1], "STAGE_UNSTAGE_VOLUME");
    });
}

#[test]
fn the_node_has_one_id_whichever_way_it_is_asked_for() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        machine.config.plugin.max_volumes_per_node = 21;
        let fixture = Fixture::on(machine, flocker).await;
        let mut node = Old::beside(fixture.csi()).node();
        let id = node.node_get_id(NodeGetIdRequest {}).await.unwrap().into_inner();
        let info = node.node_get_info(NodeGetInfoRequest {}).await.unwrap();
        let info = info.into_inner();
        assert_eq!(id.node_id, fixture.machine.node().to_string());
        assert_eq!(id.node_id, info.node_id);
        assert_eq!((info.max_volumes_per_node, info.accessible_topology), (21, None));
    });
}

#[test]
fn a_volume_is_validated_in_v0_with_yes_or_with_no_and_the_reason() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let old = Old::beside(fixture.csi());
        let volume = old.create(to_create("data")).await.unwrap();
        let validate = async |volume_id: &str, volume_capabilities: Vec<VolumeCapability>| {
            let request = ValidateVolumeCapabilitiesRequest {
                volume_id: volume_id.to_owned(),
                volume_capabilities,
                volume_attributes: volume.attributes.clone(),
                accessible_topology: Vec::new(),
            };
            let answer = old.controller().validate_volume_capabilities(request).await?;
            Ok::<_, tonic::Status>(answer.into_inner())
        };
        let (writer, shared) = (
            capability(Mode::SingleNodeWriter, &["noatime"]),
            capability(Mode::MultiNodeMultiWriter, &[]),
        );
        let yes = validate(&volume.id, vec![writer.clone()]).await.unwrap();
        assert!(yes.supported && yes.message.is_empty(), "{yes:?}");
        let no = validate(&volume.id, vec![writer.clone(), shared]).await.unwrap();
        assert!(
            !no.supported && no.message.contains("MULTI_NODE_MULTI_WRITER"),
            "{no:?}"
        );
        assert_refused(
            validate(&unknown_id().to_string(), vec![writer]).await,
            Code::NotFound,
            &["does not exist"],
        );
        assert_refused(
            validate(&volume.id, Vec::new()).await,
            Code::InvalidArgument,
            &["volume_capabilities"],
        );
    });
}

#[test]
fn volumes_and_capacity_are_reported_in_v0() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        machine.config.pools = vec![Pool {
            profile: None,
            capacity: 640 << 20,
            per_node: false,
        }];
        let fixture = Fixture::on(machine, flocker).await;
        let old = Old::beside(fixture.csi());
        let mut volumes = Vec::new();
        for name in ["one", "two", "three"] {
            volumes.push(old.create(to_create(name)).await.unwrap());
        }
        volumes.sort_by(|one, other| one.id.cmp(&other.id));
        let list = async |max_entries, starting_token: String| {
            let request = ListVolumesRequest {
                max_entries,
                starting_token,
            };
            let listed = old.controller().list_volumes(request).await.unwrap().into_inner();
            let volumes = listed.entries.into_iter().map(|entry| entry.volume.unwrap());
            (volumes.collect::<Vec<_>>(), listed.next_token)
        };
        assert_eq!(list(0, String::new()).await, (volumes.clone(), String::new()));
        let (first, token) = list(2, String::new()).await;
        let (second, end) = list(2, token).await;
        assert_eq!([first, second].concat(), volumes);
        assert_eq!(end, "");

        let room = async |volume_capabilities, parameters: &[(&str, &str)]| {
            let request = GetCapacityRequest {
                volume_capabilities,
                parameters: parameters
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
                accessible_topology: None,
            };
            let answer = old.controller().get_capacity(request).await.unwrap();
            answer.into_inner().available_capacity
        };
        let writer = vec![capability(Mode::SingleNodeWriter, &[])];
        assert_eq!(room(Vec::new(), &[]).await, 7 * SMALLEST);
        assert_eq!(room(writer, &[]).await, 7 * SMALLEST);
        let shared = vec![capability(Mode::MultiNodeMultiWriter, &[])];
        assert_eq!(room(shared, &[]).await, 0);
        assert_eq!(room(Vec::new(), &[("profile", "gold")]).await, 0);
    });
}

#[test]
fn snapshots_are_not_offered_in_v0() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let mut controller = Old::beside(fixture.csi()).controller();
        let create = controller.create_snapshot(CreateSnapshotRequest::default());
        assert_refused(create.await, Code::Unimplemented, &["CreateSnapshot", "Flocker"]);
        let delete = controller.delete_snapshot(DeleteSnapshotRequest::default());
        assert_refused(delete.await, Code::Unimplemented, &["DeleteSnapshot", "Flocker"]);
        let list = controller.list_snapshots(ListSnapshotsRequest::default());
        assert_refused(list.await, Code::Unimplemented, &["ListSnapshots", "Flocker"]);
    });
}

#[test]
fn a_mode_without_a_service_has_none_in_v0_either() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        for mode in [config::Mode::Controller, config::Mode::Node] {
            machine.config.mode = mode;
            let plugin = machine.plugin().await;
            let old = Old::beside(&plugin.csi);
            old.identity().probe(ProbeRequest {}).await.unwrap();
            let list = old.controller().list_volumes(ListVolumesRequest::default()).await;
            let node = old.node().node_get_id(NodeGetIdRequest {}).await;
            if mode == config::Mode::Controller {
                list.unwrap();
                assert_refused(node, Code::Unimplemented, &[]);
            } else {
                node.unwrap();
                assert_refused(list, Code::Unimplemented, &[]);
            }
            plugin.stop().await;
        }
    });
}
