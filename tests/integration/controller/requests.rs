//! Invalid requests.

use csi_proto::v1::controller_server::Controller;
use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use csi_proto::v1::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerGetCapabilitiesRequest, CreateSnapshotRequest,
    CreateVolumeRequest, ValidateVolumeCapabilitiesRequest, VolumeCapability, VolumeContentSource,
};
use tonic::{Code, Request};

use super::{
    MIB, controller, create, delete, list, mount_capability, settings, to_publish, unpublish, wanted,
};
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

fn with_mode(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        ..mount_capability()
    }
}

fn mounted_with(fs_type: &str, flag: &str) -> VolumeCapability {
    let mount_flags = [flag]
        .iter()
        .filter(|flag| !flag.is_empty())
        .map(|flag| (*flag).to_owned())
        .collect();
    let mount = MountVolume {
        fs_type: fs_type.to_owned(),
        mount_flags,
        ..Default::default()
    };
    VolumeCapability {
        access_type: Some(AccessType::Mount(mount)),
        ..mount_capability()
    }
}

fn sized(required_bytes: i64, limit_bytes: i64) -> CreateVolumeRequest {
    let range = CapacityRange {
        required_bytes,
        limit_bytes,
    };
    CreateVolumeRequest {
        capacity_range: Some(range),
        ..wanted("x", 0)
    }
}

fn with_parameter(key: &str, value: &str) -> CreateVolumeRequest {
    CreateVolumeRequest {
        parameters: [(key.to_owned(), value.to_owned())].into(),
        ..wanted("x", 64)
    }
}

/// A request, with the code and the parts of the message of its refusal.
type Refused = (CreateVolumeRequest, Code, &'static [&'static str]);

fn bad_capabilities() -> Vec<Refused> {
    let block = VolumeCapability {
        access_type: Some(AccessType::Block(BlockVolume {})),
        ..mount_capability()
    };
    let mixed = vec![mount_capability(), with_mode(Mode::MultiNodeMultiWriter)];
    let capabilities: [(Vec<VolumeCapability>, &[&str]); 9] = [
        (vec![], &["volume_capabilities is empty"]),
        (vec![VolumeCapability::default()], &["access_type", "mount"]),
        (vec![block], &["\"block\"", "\"mount\""]),
        (
            vec![with_mode(Mode::MultiNodeReaderOnly)],
            &["MULTI_NODE_READER_ONLY", "SINGLE_NODE_"],
        ),
        (vec![with_mode(Mode::Unknown)], &["access_mode", "SINGLE_NODE_"]),
        (mixed, &["MULTI_NODE_MULTI_WRITER"]),
        (vec![mounted_with("xfs", "")], &["fs_type", "\"xfs\"", "\"ext4\""]),
        (
            vec![mounted_with("", "discard")],
            &["mount_flags", "discard", "noatime"],
        ),
        (
            vec![mounted_with("", "noatme")],
            &["mount_flags", "noatme", "noatime"],
        ),
    ];
    let request = |(volume_capabilities, parts)| {
        let request = CreateVolumeRequest {
            volume_capabilities,
            ..wanted("x", 64)
        };
        (request, Code::InvalidArgument, parts)
    };
    capabilities.into_iter().map(request).collect()
}

fn bad_names_and_parameters() -> Vec<Refused> {
    let mutable_parameters = [("iops".to_owned(), "1".to_owned())].into();
    let mutable = CreateVolumeRequest {
        mutable_parameters,
        ..wanted("x", 64)
    };
    let volume_content_source = Some(VolumeContentSource::default());
    let copied = CreateVolumeRequest {
        volume_content_source,
        ..wanted("x", 64)
    };
    let requests: [(CreateVolumeRequest, &[&str]); 7] = [
        (wanted("", 64), &["name is empty", "1 to 128 bytes"]),
        (wanted(&"x".repeat(129), 64), &["129 bytes", "128"]),
        (wanted("a\0b", 64), &["name", "U+0000"]),
        (
            with_parameter("profil", "gold"),
            &["\"profil\"", "did you mean \"profile\"?"],
        ),
        (
            with_parameter("metadata.csi.driver", "x"),
            &["\"csi.driver\"", "own key"],
        ),
        (mutable, &["mutable_parameters"]),
        (copied, &["volume_content_source", "not supported"]),
    ];
    requests
        .into_iter()
        .map(|(request, parts)| (request, Code::InvalidArgument, parts))
        .collect()
}

fn bad_sizes() -> Vec<Refused> {
    vec![
        (sized(-1, 0), Code::InvalidArgument, &["required_bytes", "-1"]),
        (sized(0, -1), Code::InvalidArgument, &["limit_bytes", "-1"]),
        (
            sized(0, MIB),
            Code::OutOfRange,
            &["limit_bytes 1048576", "64 MiB"],
        ),
        (
            sized(200 * MIB, 100 * MIB),
            Code::OutOfRange,
            &["limit_bytes", "required_bytes"],
        ),
        (
            sized(100 * MIB + 1, 100 * MIB + 1),
            Code::OutOfRange,
            &["104857601", "1048576 bytes"],
        ),
    ]
}

#[test]
fn an_invalid_volume_is_refused_with_the_field_its_value_and_the_supported_ones() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        let bad = [bad_names_and_parameters(), bad_capabilities(), bad_sizes()].concat();
        for (request, code, parts) in bad {
            let name = format!("creating volume {:?}", request.name);
            let refused = create(&controller, request).await.unwrap_err();
            assert_eq!(refused.code(), code, "{}", refused.message());
            for part in parts.iter().chain([&&*name]) {
                assert!(
                    refused.message().contains(part),
                    "{part:?} in {:?}",
                    refused.message()
                );
            }
        }
        let counters = flocker.embedded().counters();
        assert!(
            counters.requests.is_empty(),
            "Flocker was not asked: {counters:?}"
        );
        flocker.stop().await;
    });
}

#[test]
fn missing_fields_are_refused_before_any_read() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        let mut incapable = to_publish("fake-vol-id", "fake-node-id");
        incapable.volume_capability = None;
        let publications = [
            (to_publish("", "fake-node-id"), "volume_id"),
            (to_publish("fake-vol-id", ""), "node_id"),
            (incapable, "volume_capability"),
        ];
        for (request, field) in publications {
            let refused = controller
                .controller_publish_volume(Request::new(request))
                .await
                .unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains(field), "{}", refused.message());
        }
        let validation = |volume_id: &str, volume_capabilities| {
            let volume_id = volume_id.to_owned();
            Request::new(ValidateVolumeCapabilitiesRequest {
                volume_id,
                volume_capabilities,
                ..Default::default()
            })
        };
        for request in [
            validation("", vec![mount_capability()]),
            validation("fake-vol-id", vec![]),
        ] {
            let refused = controller
                .validate_volume_capabilities(request)
                .await
                .unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
        }
        let unknown =
            controller.validate_volume_capabilities(validation("fake-vol-id", vec![mount_capability()]));
        assert_eq!(unknown.await.unwrap_err().code(), Code::NotFound);
        assert_eq!(
            delete(&controller, "").await.unwrap_err().code(),
            Code::InvalidArgument
        );
        assert_eq!(
            unpublish(&controller, "", "").await.unwrap_err().code(),
            Code::InvalidArgument
        );
        assert_eq!(
            list(&controller, -1, "").await.unwrap_err().code(),
            Code::InvalidArgument
        );
        let bad_token = list(&controller, 0, "invalid-token").await.unwrap_err();
        assert_eq!(bad_token.code(), Code::Aborted);
        assert!(
            bad_token.message().contains("starting_token"),
            "{}",
            bad_token.message()
        );
        let counters = flocker.embedded().counters();
        assert!(
            counters.requests.is_empty(),
            "Flocker was not asked: {counters:?}"
        );
        flocker.stop().await;
    });
}

#[test]
fn a_confirmation_echoes_the_request_and_a_refusal_says_why() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        let volume = create(&controller, wanted("data", 64)).await.unwrap();
        let request = ValidateVolumeCapabilitiesRequest {
            volume_id: volume.volume_id,
            volume_context: [("any".to_owned(), "thing".to_owned())].into(),
            volume_capabilities: vec![mount_capability(), mounted_with("ext4", "noatime")],
            parameters: [("metadata.team".to_owned(), "db".to_owned())].into(),
            ..Default::default()
        };
        let answer = controller
            .validate_volume_capabilities(Request::new(request.clone()))
            .await
            .unwrap();
        let confirmed = answer.into_inner().confirmed.unwrap();
        assert_eq!(confirmed.volume_context, request.volume_context);
        assert_eq!(confirmed.volume_capabilities, request.volume_capabilities);
        assert_eq!(confirmed.parameters, request.parameters);

        let unsupported = ValidateVolumeCapabilitiesRequest {
            volume_capabilities: vec![mount_capability(), with_mode(Mode::MultiNodeMultiWriter)],
            ..request
        };
        let answer = controller
            .validate_volume_capabilities(Request::new(unsupported))
            .await
            .unwrap();
        let answer = answer.into_inner();
        assert!(answer.confirmed.is_none());
        assert!(
            answer.message.contains("MULTI_NODE_MULTI_WRITER"),
            "{}",
            answer.message
        );
        flocker.stop().await;
    });
}

#[test]
fn functions_that_flocker_lacks_are_neither_announced_nor_offered() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        let request = Request::new(ControllerGetCapabilitiesRequest {});
        let announced = controller
            .controller_get_capabilities(request)
            .await
            .unwrap()
            .into_inner()
            .capabilities;
        assert_eq!(announced.len(), 8);
        let snapshot = controller
            .create_snapshot(Request::new(CreateSnapshotRequest::default()))
            .await;
        assert_eq!(snapshot.unwrap_err().code(), Code::Unimplemented);
        let expand =
            controller.controller_expand_volume(Request::new(ControllerExpandVolumeRequest::default()));
        assert_eq!(expand.await.unwrap_err().code(), Code::Unimplemented);
        flocker.stop().await;
    });
}
