//! Invalid node requests; those of the controller are beside its other tests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::volume_capability::{AccessType, BlockVolume, MountVolume};
use csi_proto::v1::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    VolumeCapability,
};
use tonic::{Code, Status};

use crate::support::csi::{Csi, Usage, capability, with_flags};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

/// A value of a field, with the code and the parts of the message of its refusal.
type Refused<T> = (T, Code, Vec<String>);

fn refused<T>(value: T, code: Code, parts: &[&str]) -> Refused<T> {
    (value, code, parts.iter().map(|&part| part.to_owned()).collect())
}

fn check<T>(answer: Result<T, Status>, field: &str, code: Code, parts: &[String]) {
    let Err(status) = answer else {
        panic!("{field} is not refused: {parts:?}")
    };
    assert_eq!(status.code(), code, "{field}: {}", status.message());
    for part in parts.iter().map(String::as_str).chain([field]) {
        assert!(
            status.message().contains(part),
            "{part:?} in {:?}",
            status.message()
        );
    }
}

fn mounted_as(fs_type: &str) -> VolumeCapability {
    let mount = MountVolume {
        fs_type: fs_type.to_owned(),
        ..Default::default()
    };
    VolumeCapability {
        access_type: Some(AccessType::Mount(mount)),
        ..capability(Mode::SingleNodeWriter)
    }
}

fn bad_capabilities() -> Vec<Refused<Option<VolumeCapability>>> {
    let block = VolumeCapability {
        access_type: Some(AccessType::Block(BlockVolume {})),
        ..capability(Mode::SingleNodeWriter)
    };
    let modeless = VolumeCapability {
        access_mode: None,
        ..capability(Mode::SingleNodeWriter)
    };
    let typeless = VolumeCapability {
        access_type: None,
        ..capability(Mode::SingleNodeWriter)
    };
    let flagged = |flags: &[&str]| Some(with_flags(Mode::SingleNodeWriter, flags));
    let multi = |mode| Some(capability(mode));
    let (missing, unsupported) = (Code::InvalidArgument, Code::FailedPrecondition);
    vec![
        refused(None, missing, &["missing"]),
        refused(Some(modeless), missing, &["access_mode", "SINGLE_NODE_"]),
        refused(Some(typeless), missing, &["access_type", "\"mount\""]),
        refused(Some(block), unsupported, &["\"block\"", "\"mount\""]),
        refused(
            multi(Mode::MultiNodeReaderOnly),
            unsupported,
            &["MULTI_NODE_READER_ONLY", "SINGLE_NODE_"],
        ),
        refused(
            multi(Mode::MultiNodeSingleWriter),
            unsupported,
            &["MULTI_NODE_SINGLE_WRITER", "SINGLE_NODE_"],
        ),
        refused(
            multi(Mode::MultiNodeMultiWriter),
            unsupported,
            &["MULTI_NODE_MULTI_WRITER", "SINGLE_NODE_"],
        ),
        refused(
            Some(mounted_as("xfs")),
            unsupported,
            &["fs_type", "\"xfs\"", "\"ext4\""],
        ),
        refused(
            flagged(&["discard"]),
            unsupported,
            &["mount_flags", "\"discard\"", "noatime"],
        ),
        refused(
            flagged(&["noatime", "sync"]),
            unsupported,
            &["mount_flags", "\"sync\"", "noatime"],
        ),
        refused(
            flagged(&["noatme"]),
            unsupported,
            &["mount_flags", "\"noatme\"", "\"noatime\"?"],
        ),
        refused(
            flagged(&["bind"]),
            unsupported,
            &["mount_flags", "\"bind\"", "noatime"],
        ),
        refused(
            flagged(&["ro", "rw"]),
            unsupported,
            &["mount_flags", "\"ro\"", "\"rw\""],
        ),
    ]
}

/// Paths that cannot be targets, below a directory in which they are prepared.
fn bad_paths(below: &Path) -> Vec<Refused<String>> {
    let path = |name: &str| below.join(name).display().to_string();
    fs::create_dir(below.join("directory")).unwrap();
    fs::write(below.join("file"), "").unwrap();
    symlink(below.join("directory"), below.join("link")).unwrap();
    symlink(below.join("nowhere"), below.join("dangling")).unwrap();
    let long_name = "x".repeat(256);
    let long_path = "/x".repeat(2048);
    let invalid = |value: &str, part: &str| refused(value.to_owned(), Code::InvalidArgument, &[part]);
    vec![
        invalid("", "empty"),
        invalid("relative/path", "\"relative/path\" is not absolute"),
        invalid("./relative", "not absolute"),
        invalid(&path("directory/../directory"), ".."),
        invalid("/", "root directory"),
        invalid("/a\0b", "NUL"),
        invalid(&path(&long_name), "255"),
        invalid(&long_path, "4095"),
        invalid(&path("link"), "symbolic link"),
        invalid(&path("dangling"), "symbolic link"),
        invalid(&path("file"), "not a directory"),
        invalid(&path("file/below"), "not a directory"),
        invalid(&path("file/far/below"), "not a directory"),
        invalid(&path("missing/below"), "does not exist"),
    ]
}

const UNKNOWN_IDS: [&str; 8] = [
    "fake-vol-id-123",
    "6e2ea1b0-8cb9-4e0b-a8a7-2e0d0e3c9f11",
    "6E2EA1B0-8CB9-4E0B-A8A7-2E0D0E3C9F11",
    "{6e2ea1b0-8cb9-4e0b-a8a7-2e0d0e3c9f11}",
    "6e2ea1b08cb94e0ba8a72e0d0e3c9f11",
    "../../etc",
    "a b\nc",
    "ü",
];

struct Bench {
    flocker: Flocker,
    machine: Machine,
    csi: Csi,
    usage: Usage,
    _plugin: crate::support::machine::Running,
}

impl Bench {
    /// Prepares a node with a volume that is attached to it.
    async fn start() -> Self {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.plugin().await;
        let csi = plugin.csi.clone();
        let volume = csi.create("data").await;
        let context = csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        Self {
            flocker,
            machine,
            csi,
            usage,
            _plugin: plugin,
        }
    }

    async fn stage(&self, request: NodeStageVolumeRequest) -> Result<(), Status> {
        self.csi.node().node_stage_volume(request).await.map(drop)
    }

    async fn publish(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.csi.node().node_publish_volume(request).await.map(drop)
    }
}

#[test]
fn an_invalid_staging_is_refused_with_the_field_its_value_and_the_supported_ones() {
    in_own_namespace(|| async {
        let bench = Bench::start().await;
        let usual = || bench.usage.to_stage();
        let mut paths = bad_paths(&bench.machine.path(""));
        // A staging path that does not exist is made.
        paths.retain(|(path, ..)| !path.ends_with("missing/below"));
        for (staging_target_path, code, parts) in paths {
            let request = NodeStageVolumeRequest {
                staging_target_path,
                ..usual()
            };
            check(bench.stage(request).await, "staging_target_path", code, &parts);
        }
        for (volume_capability, code, parts) in bad_capabilities() {
            let request = NodeStageVolumeRequest {
                volume_capability,
                ..usual()
            };
            check(bench.stage(request).await, "volume_capability", code, &parts);
        }
        for volume_id in UNKNOWN_IDS {
            for publish_context in [usual().publish_context, [].into()] {
                let request = NodeStageVolumeRequest {
                    volume_id: volume_id.to_owned(),
                    publish_context,
                    ..usual()
                };
                let shown = format!("{volume_id:?}");
                check(
                    bench.stage(request).await,
                    "volume",
                    Code::NotFound,
                    &[shown.trim_matches('"').to_owned(), "does not exist".to_owned()],
                );
            }
        }
        let request = NodeStageVolumeRequest {
            volume_id: String::new(),
            ..usual()
        };
        check(
            bench.stage(request).await,
            "volume_id",
            Code::InvalidArgument,
            &["empty".to_owned()],
        );
        assert_eq!(Mounts::read().below(&bench.machine.path("")), []);
        assert!(bench.machine.records().is_empty());
        assert_eq!(bench.flocker.client().await.list_leases().await.unwrap().len(), 1);
    });
}

#[test]
fn an_invalid_publication_is_refused_with_the_field_its_value_and_the_supported_ones() {
    in_own_namespace(|| async {
        let bench = Bench::start().await;
        bench.csi.stage(&bench.usage).await.unwrap();
        let usual = || bench.usage.to_publish();
        let paths = bad_paths(&bench.machine.path(""));
        for (target_path, code, parts) in &paths {
            let request = NodePublishVolumeRequest {
                target_path: target_path.clone(),
                ..usual()
            };
            check(bench.publish(request).await, "target_path", *code, parts);
        }
        for (staging_target_path, code, parts) in paths.iter().filter(|(path, ..)| !path.is_empty()) {
            let request = NodePublishVolumeRequest {
                staging_target_path: staging_target_path.clone(),
                ..usual()
            };
            check(bench.publish(request).await, "staging_target_path", *code, parts);
        }
        for (volume_capability, code, parts) in bad_capabilities() {
            let request = NodePublishVolumeRequest {
                volume_capability,
                ..usual()
            };
            check(bench.publish(request).await, "volume_capability", code, &parts);
        }
        for volume_id in UNKNOWN_IDS {
            let request = NodePublishVolumeRequest {
                volume_id: volume_id.to_owned(),
                ..usual()
            };
            let status = bench.publish(request).await.unwrap_err();
            assert!(
                [Code::NotFound, Code::FailedPrecondition].contains(&status.code()),
                "{status}"
            );
            let shown = format!("{volume_id:?}");
            assert!(status.message().contains(shown.trim_matches('"')), "{status}");
        }
        assert!(!bench.usage.target.exists());
        assert_eq!(
            Mounts::read().below(&bench.machine.path("")).len(),
            1,
            "only the staged volume"
        );
    });
}

#[test]
fn an_unstaging_or_unpublication_of_nothing_that_can_be_is_refused() {
    in_own_namespace(|| async {
        let bench = Bench::start().await;
        for (path, part) in [
            ("", "empty"),
            ("relative/path", "not absolute"),
            ("/a/../b", ".."),
        ] {
            let request = NodeUnstageVolumeRequest {
                staging_target_path: path.to_owned(),
                ..bench.usage.to_unstage()
            };
            let answer = bench.csi.node().node_unstage_volume(request).await;
            let parts = [part.to_owned()];
            check(answer, "staging_target_path", Code::InvalidArgument, &parts);
            let request = NodeUnpublishVolumeRequest {
                target_path: path.to_owned(),
                ..bench.usage.to_unpublish()
            };
            let answer = bench.csi.node().node_unpublish_volume(request).await;
            check(answer, "target_path", Code::InvalidArgument, &parts);
        }
        let request = NodeUnstageVolumeRequest {
            volume_id: String::new(),
            ..bench.usage.to_unstage()
        };
        let answer = bench.csi.node().node_unstage_volume(request).await;
        check(answer, "volume_id", Code::InvalidArgument, &["empty".to_owned()]);
        let request = NodeUnpublishVolumeRequest {
            volume_id: String::new(),
            ..bench.usage.to_unpublish()
        };
        let answer = bench.csi.node().node_unpublish_volume(request).await;
        check(answer, "volume_id", Code::InvalidArgument, &["empty".to_owned()]);
    });
}

#[test]
fn a_path_below_a_link_is_the_place_to_which_the_link_leads() {
    in_own_namespace(|| async {
        let bench = Bench::start().await;
        let link = bench.machine.path("link");
        symlink(bench.machine.path(""), &link).unwrap();
        let linked = Usage {
            staging: link.join("staging/data"),
            target: link.join("targets/data"),
            ..bench.usage.clone()
        };
        bench.csi.stage(&linked).await.unwrap();
        bench.csi.publish(&linked).await.unwrap();
        for usage in [&bench.usage, &linked] {
            bench.csi.stage(usage).await.unwrap();
            bench.csi.publish(usage).await.unwrap();
            assert!(
                !bench
                    .csi
                    .stats(usage)
                    .await
                    .unwrap()
                    .volume_condition
                    .unwrap()
                    .abnormal
            );
        }
        only_mount_at(&bench.usage.alias());
        only_mount_at(&bench.usage.target);
        bench.csi.unpublish(&bench.usage).await.unwrap();
        bench.csi.unpublish(&linked).await.unwrap();
        bench.csi.unstage(&linked).await.unwrap();
        assert_eq!(Mounts::read().below(&bench.machine.path("")), []);
        assert!(bench.machine.records().is_empty());
    });
}
