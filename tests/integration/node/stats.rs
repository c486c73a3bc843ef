//! `NodeGetVolumeStats`, `NodeGetInfo` and the announced capabilities.

use host_fs::mount::testing::unmount;
use std::fs;

use csi_proto::v1::node_service_capability::Type as Kind;
use csi_proto::v1::node_service_capability::rpc::Type;
use csi_proto::v1::{
    NodeExpandVolumeRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest, NodeGetVolumeStatsRequest,
};
use rustix::mount::{MountFlags, mount};
use tonic::Code;

use super::{Fixture, assert_refused, unknown_id};
use crate::support::csi::Usage;
use crate::support::namespace::in_own_namespace;

#[test]
fn a_volume_is_measured_where_it_is_published_or_staged_and_nowhere_else() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        let at = |path: &std::path::Path| Usage {
            target: path.to_owned(),
            ..usage.clone()
        };
        for path in [&usage.target, &usage.staging, &usage.alias()] {
            let stats = csi.stats(&at(path)).await.unwrap();
            assert_eq!(stats.usage.len(), 2, "bytes and inodes");
            assert!(!stats.volume_condition.unwrap().abnormal);
        }
        let elsewhere = fixture.machine.path("targets");
        for path in [&elsewhere, &fixture.machine.path("no/such/path")] {
            assert_refused(
                csi.stats(&at(path)).await,
                Code::NotFound,
                &[&usage.volume_id, path.to_str().unwrap()],
            );
        }
        for volume_id in [unknown_id().to_string(), "fake-vol-id".to_owned()] {
            let other = Usage {
                volume_id,
                ..usage.clone()
            };
            assert_refused(csi.stats(&other).await, Code::NotFound, &[&other.volume_id]);
        }
        let empty = NodeGetVolumeStatsRequest::default();
        assert_refused(
            csi.node().node_get_volume_stats(empty).await,
            Code::InvalidArgument,
            &["volume_id is empty"],
        );
        let pathless = NodeGetVolumeStatsRequest {
            volume_id: usage.volume_id.clone(),
            ..Default::default()
        };
        assert_refused(
            csi.node().node_get_volume_stats(pathless).await,
            Code::InvalidArgument,
            &["volume_path is empty"],
        );
    });
}

#[test]
fn a_volume_that_lost_its_hold_on_flockers_mount_is_abnormal_and_not_published_again() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        let flockers = fixture.flocker.mount_of(1, usage.dataset());
        fs::write(usage.target.join("file"), "precious").unwrap();

        mount("over", &flockers, "tmpfs", MountFlags::empty(), None).unwrap();
        let condition = csi.stats(&usage).await.unwrap().volume_condition.unwrap();
        assert!(condition.abnormal, "{}", condition.message);
        assert!(
            condition.message.contains(flockers.to_str().unwrap()),
            "{}",
            condition.message
        );
        assert_refused(
            csi.publish(&usage.at_target("again")).await,
            Code::FailedPrecondition,
            &[&usage.volume_id, "Flocker"],
        );

        unmount(&flockers);
        let condition = csi.stats(&usage).await.unwrap().volume_condition.unwrap();
        assert!(!condition.abnormal, "{}", condition.message);
        csi.publish(&usage.at_target("again")).await.unwrap();
        assert_eq!(fs::read_to_string(usage.target.join("file")).unwrap(), "precious");
    });
}

#[test]
fn the_node_reports_its_id_and_capabilities() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let mut node = fixture.csi().node();
        let info = node
            .node_get_info(NodeGetInfoRequest {})
            .await
            .unwrap()
            .into_inner();
        assert_eq!(info.node_id, fixture.flocker.node(1).to_string());
        assert_eq!(info.max_volumes_per_node, 0);
        assert!(info.accessible_topology.is_none());
        let announced = node
            .node_get_capabilities(NodeGetCapabilitiesRequest {})
            .await
            .unwrap()
            .into_inner()
            .capabilities;
        let announced: Vec<_> = announced
            .into_iter()
            .map(|capability| match capability.r#type.unwrap() {
                Kind::Rpc(rpc) => rpc.r#type(),
            })
            .collect();
        assert_eq!(
            announced,
            [
                Type::StageUnstageVolume,
                Type::GetVolumeStats,
                Type::VolumeCondition,
                Type::SingleNodeMultiWriter
            ]
        );
        let expand = node.node_expand_volume(NodeExpandVolumeRequest::default()).await;
        assert_refused(expand, Code::Unimplemented, &["Flocker"]);
    });
}
