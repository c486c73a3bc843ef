//! A refusal has the same code and the same words in both versions.

use std::fmt::Debug;

use csi_proto::v0::volume_capability::access_mode::Mode;
use csi_proto::v0::volume_capability::{AccessType, BlockVolume};
use csi_proto::{v0, v1};
use prost::Message;
use rustix::mount::{MountFlags, mount};
use tonic::{Code, Status};

use super::{Old, SMALLEST, capability, to_attach, to_create, to_publish, to_stage};
use crate::node::{Fixture, unknown_id};
use crate::support::csi::Usage;
use crate::support::namespace::in_own_namespace;

/// Reads a request of one version as the other reads its bytes: most of them kept their numbers.
fn same_bytes<T: Message + Default>(message: &impl Message) -> T {
    T::decode(message.encode_to_vec().as_slice()).unwrap()
}

#[track_caller]
fn assert_alike<Old: Debug, New: Debug>(old: Result<Old, Status>, new: Result<New, Status>, code: Code) {
    let (old, new) = (old.unwrap_err(), new.unwrap_err());
    assert_eq!((old.code(), old.message()), (new.code(), new.message()));
    assert_eq!(old.code(), code, "{}", old.message());
}

#[test]
fn a_controller_refuses_to_create_alike_in_both_versions() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let old = Old::beside(fixture.csi());
        let (mut one, mut other) = (old.controller(), fixture.csi().controller());
        old.create(to_create("data")).await.unwrap();

        let shared = vec![capability(Mode::MultiNodeMultiWriter, &[])];
        let larger = v0::CapacityRange {
            required_bytes: 2 * SMALLEST,
            limit_bytes: 0,
        };
        let impossible = v0::CapacityRange {
            required_bytes: 1,
            limit_bytes: 1,
        };
        let source = v0::VolumeContentSource {
            r#type: Some(v0::volume_content_source::Type::Snapshot(
                v0::volume_content_source::SnapshotSource {
                    id: "snapshot".to_owned(),
                },
            )),
        };
        for (request, code) in [
            (to_create(""), Code::InvalidArgument),
            (
                v0::CreateVolumeRequest {
                    capacity_range: Some(larger),
                    ..to_create("data")
                },
                Code::AlreadyExists,
            ),
            (
                v0::CreateVolumeRequest {
                    capacity_range: Some(impossible),
                    ..to_create("tiny")
                },
                Code::OutOfRange,
            ),
            (
                v0::CreateVolumeRequest {
                    volume_capabilities: shared,
                    ..to_create("shared")
                },
                Code::InvalidArgument,
            ),
            (
                v0::CreateVolumeRequest {
                    parameters: [("profil".to_owned(), "gold".to_owned())].into(),
                    ..to_create("mistyped")
                },
                Code::InvalidArgument,
            ),
            (
                v0::CreateVolumeRequest {
                    volume_content_source: Some(source),
                    ..to_create("copy")
                },
                Code::InvalidArgument,
            ),
        ] {
            let new: v1::CreateVolumeRequest = same_bytes(&request);
            assert_alike(
                one.create_volume(request).await,
                other.create_volume(new).await,
                code,
            );
        }
    });
}

#[test]
fn a_controller_refuses_to_attach_to_delete_and_to_list_alike_in_both_versions() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let old = Old::beside(fixture.csi());
        let (mut one, mut other) = (old.controller(), fixture.csi().controller());
        let (here, there) = (fixture.flocker.node(1), fixture.flocker.node(2));
        let volume = old.create(to_create("data")).await.unwrap().id;
        old.attach(&volume, here).await.unwrap();
        for (request, code) in [
            (to_attach(&volume, there), Code::FailedPrecondition),
            (
                v0::ControllerPublishVolumeRequest {
                    node_id: "no node of Flocker's".to_owned(),
                    ..to_attach(&volume, here)
                },
                Code::NotFound,
            ),
            (to_attach(&unknown_id().to_string(), here), Code::NotFound),
            (to_attach("", here), Code::InvalidArgument),
        ] {
            let new: v1::ControllerPublishVolumeRequest = same_bytes(&request);
            let one = one.controller_publish_volume(request).await;
            let other = other.controller_publish_volume(new).await;
            assert_alike(one, other, code);
        }
        assert_alike(
            old.delete(&volume).await,
            fixture.csi().delete(volume.parse().unwrap()).await,
            Code::FailedPrecondition,
        );
        let list = v0::ListVolumesRequest {
            max_entries: 1,
            starting_token: "a foreign token".to_owned(),
        };
        let new: v1::ListVolumesRequest = same_bytes(&list);
        assert_alike(
            one.list_volumes(list).await,
            other.list_volumes(new).await,
            Code::Aborted,
        );
    });
}

#[test]
fn a_node_refuses_alike_in_both_versions() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let old = Old::beside(fixture.csi());
        let (mut one, mut other) = (old.node(), fixture.csi().node());
        let usage = fixture.staged("data").await;
        let block = v0::VolumeCapability {
            access_type: Some(AccessType::Block(BlockVolume {})),
            ..capability(Mode::SingleNodeWriter, &[])
        };
        let unknown = fixture
            .machine
            .usage("other", unknown_id(), &usage.publish_context);
        for (request, code) in [
            (to_stage(&unknown), Code::NotFound),
            (
                v0::NodeStageVolumeRequest {
                    volume_capability: Some(block),
                    ..to_stage(&usage)
                },
                Code::FailedPrecondition,
            ),
            (
                v0::NodeStageVolumeRequest {
                    volume_capability: None,
                    ..to_stage(&usage)
                },
                Code::InvalidArgument,
            ),
            (
                v0::NodeStageVolumeRequest {
                    staging_target_path: "relative".to_owned(),
                    ..to_stage(&usage)
                },
                Code::InvalidArgument,
            ),
        ] {
            let new: v1::NodeStageVolumeRequest = same_bytes(&request);
            assert_alike(
                one.node_stage_volume(request).await,
                other.node_stage_volume(new).await,
                code,
            );
        }

        fixture.csi().publish(&usage).await.unwrap();
        let taken = usage.at_target("taken");
        std::fs::create_dir(&taken.target).unwrap();
        mount("foreign", &taken.target, "tmpfs", MountFlags::empty(), None).unwrap();
        for (request, code) in [
            (to_publish(&usage.read_only()), Code::AlreadyExists),
            (to_publish(&taken), Code::FailedPrecondition),
            (to_publish(&unknown), Code::FailedPrecondition),
            (
                v0::NodePublishVolumeRequest {
                    staging_target_path: String::new(),
                    ..to_publish(&usage)
                },
                Code::FailedPrecondition,
            ),
            (
                v0::NodePublishVolumeRequest {
                    target_path: String::new(),
                    ..to_publish(&usage)
                },
                Code::InvalidArgument,
            ),
        ] {
            let new: v1::NodePublishVolumeRequest = same_bytes(&request);
            assert_alike(
                one.node_publish_volume(request).await,
                other.node_publish_volume(new).await,
                code,
            );
        }
        let nameless = Usage {
            volume_id: String::new(),
            ..usage.clone()
        };
        for (usage, code) in [
            (&taken, Code::FailedPrecondition),
            (&nameless, Code::InvalidArgument),
        ] {
            assert_alike(
                old.unpublish(usage).await,
                fixture.csi().unpublish(usage).await,
                code,
            );
        }
        assert_alike(
            old.unstage(&usage).await,
            fixture.csi().unstage(&usage).await,
            Code::FailedPrecondition,
        );
    });
}
