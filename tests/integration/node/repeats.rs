//! Repeated calls, and calls for volumes and mounts that do not exist.

use std::fs;

use csi_proto::v1::ControllerPublishVolumeRequest;
use csi_proto::v1::volume_capability::access_mode::Mode;
use rustix::io::Errno;
use tonic::Code;

use super::{Fixture, agent_unmounts, assert_refused, unknown_id, wait_until_agent_unmounts};
use crate::support::csi::{Usage, to_attach, with_flags};
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

#[test]
fn every_call_repeated_ten_times_has_the_effect_of_one() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.attached("data").await);
        for _ in 0..10 {
            csi.stage(&usage).await.unwrap();
            only_mount_at(&usage.alias());
        }
        let alias = only_mount_at(&usage.alias());
        for _ in 0..10 {
            csi.publish(&usage).await.unwrap();
            only_mount_at(&usage.target);
            csi.stage(&usage).await.unwrap();
        }
        assert_eq!(
            only_mount_at(&usage.alias()),
            alias,
            "it is the same mount as before"
        );
        assert_eq!(
            (fixture.machine.devices().len(), fixture.machine.records().len()),
            (1, 1)
        );
        for _ in 0..10 {
            csi.unpublish(&usage).await.unwrap();
            assert!(!usage.target.exists());
        }
        for _ in 0..10 {
            csi.unstage(&usage).await.unwrap();
            assert!(usage.staging.exists() && !usage.alias().exists());
        }
        assert_eq!(Mounts::read().below(&fixture.machine.path("")), []);
        assert!(fixture.machine.records().is_empty());
        assert_eq!(
            fixture.flocker.leaseholder(usage.dataset()).await,
            Some(fixture.machine.node()),
            "the lease is the controller's to release"
        );
    });
}

#[test]
fn equal_calls_at_the_same_time_are_one() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.attached("data").await);
        let answers = futures::future::join_all((0..10).map(|_| csi.stage(&usage))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        only_mount_at(&usage.alias());
        let answers = futures::future::join_all((0..10).map(|_| csi.publish(&usage))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        only_mount_at(&usage.target);
        let answers = futures::future::join_all((0..10).map(|_| csi.unpublish(&usage))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert!(!usage.target.exists());
    });
}

#[test]
fn a_volume_is_published_read_only_whoever_asks_for_it() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, node) = (fixture.csi(), fixture.machine.node());
        let volume = csi.create("data").await;
        let attached = csi.attach(volume, node).await;
        let read_only = ControllerPublishVolumeRequest {
            readonly: true,
            ..to_attach(volume, node)
        };
        let attached_read_only = csi.try_attach(read_only).await.unwrap();
        let usage = fixture.machine.usage("data", volume, &attached);
        csi.stage(&usage).await.unwrap();
        let storage_class = ["rw,defaults", "_netdev", "noatime"];
        let with_rw = Usage {
            capability: with_flags(Mode::SingleNodeWriter, &storage_class),
            ..usage.clone()
        };
        let by_controller = Usage {
            publish_context: attached_read_only,
            ..with_rw.clone()
        };
        for (name, usage) in [("by-node", with_rw.read_only()), ("by-controller", by_controller)] {
            let usage = usage.at_target(name);
            csi.publish(&usage).await.unwrap();
            let options = only_mount_at(&usage.target).options;
            assert!(options.contains(&"ro".to_owned()), "{name}: {options:?}");
            assert!(options.contains(&"noatime".to_owned()), "{name}: {options:?}");
            csi.publish(&usage).await.unwrap();
            csi.unpublish(&usage).await.unwrap();
        }
        let mut not_read_only = with_rw;
        let key = "flocker.csi.clusterhq.com/readonly".to_owned();
        not_read_only.publish_context.insert(key, "false".to_owned());
        csi.publish(&not_read_only).await.unwrap();
        assert!(only_mount_at(&usage.target).options.contains(&"rw".to_owned()));
    });
}

#[test]
fn a_publication_with_other_flags_is_refused_and_changes_nothing() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let usage = fixture.published("data").await;
        let target = usage.target.to_str().unwrap();
        let other = fixture.csi().publish(&usage.read_only()).await;
        assert_refused(
            other,
            Code::AlreadyExists,
            &[target, "read-write", "\"ro\"", "unpublish"],
        );
        let reader = fixture
            .csi()
            .publish(&usage.with_mode(Mode::SingleNodeReaderOnly))
            .await;
        assert_refused(reader, Code::AlreadyExists, &[target]);
        let noexec = Usage {
            capability: with_flags(Mode::SingleNodeWriter, &["noexec"]),
            ..usage.clone()
        };
        assert_refused(
            fixture.csi().publish(&noexec).await,
            Code::AlreadyExists,
            &[target, "noexec"],
        );
        assert!(only_mount_at(&usage.target).options.contains(&"rw".to_owned()));

        let reading = usage.at_target("reading").read_only();
        fixture.csi().publish(&reading).await.unwrap();
        fixture.csi().publish(&reading).await.unwrap();
        let writing = Usage {
            readonly: false,
            ..reading
        };
        assert_refused(
            fixture.csi().publish(&writing).await,
            Code::AlreadyExists,
            &["read-only"],
        );
    });
}

#[test]
fn a_volume_has_as_many_targets_as_its_access_mode_allows() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        fs::write(usage.target.join("file"), "shared").unwrap();
        for (name, mode) in [
            ("second", Mode::SingleNodeWriter),
            ("third", Mode::SingleNodeReaderOnly),
            ("fourth", Mode::SingleNodeMultiWriter),
        ] {
            let more = usage.at_target(name).with_mode(mode);
            csi.publish(&more).await.unwrap();
            assert_eq!(fs::read_to_string(more.target.join("file")).unwrap(), "shared");
        }
        let single = usage.at_target("fifth").with_mode(Mode::SingleNodeSingleWriter);
        assert_refused(
            csi.publish(&single).await,
            Code::FailedPrecondition,
            &[
                "SINGLE_NODE_SINGLE_WRITER",
                single.target.to_str().unwrap(),
                "published at",
            ],
        );
        assert!(!single.target.exists());
        for name in ["data", "second", "third", "fourth"] {
            csi.unpublish(&usage.at_target(name)).await.unwrap();
        }
        csi.publish(&single).await.unwrap();
        csi.publish(&single).await.unwrap();
    });
}

#[test]
fn a_mount_that_does_not_exist_counts_as_undone() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, machine) = (fixture.csi(), &fixture.machine);
        let known = fixture.attached("data").await;
        let unknown = machine.usage("unknown", unknown_id(), &known.publish_context);
        let odd = Usage {
            volume_id: "fake-vol-id-123".to_owned(),
            ..unknown.clone()
        };
        for usage in [known, unknown, odd] {
            csi.unpublish(&usage).await.unwrap();
            csi.unstage(&usage).await.unwrap();
            assert!(usage.staging.exists(), "it is the orchestrator's");
            let nowhere = Usage {
                staging: machine.path("no/such/path"),
                target: machine.path("no/such/path"),
                ..usage
            };
            csi.unpublish(&nowhere).await.unwrap();
            csi.unstage(&nowhere).await.unwrap();
        }
    });
}

#[test]
fn a_volume_is_not_unstaged_while_it_is_published() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        assert_refused(
            csi.unstage(&usage).await,
            Code::FailedPrecondition,
            &[
                &usage.volume_id,
                usage.target.to_str().unwrap(),
                "NodeUnpublishVolume",
            ],
        );
        only_mount_at(&usage.alias());
        fs::write(usage.target.join("file"), "still writable").unwrap();
        csi.unpublish(&usage).await.unwrap();
        csi.unstage(&usage).await.unwrap();
    });
}

#[test]
fn a_volume_in_use_is_not_unpublished_and_its_user_is_named() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        let open = fs::File::create(usage.target.join("open")).unwrap();
        let user = format!("process {}", std::process::id());
        assert_refused(
            csi.unpublish(&usage).await,
            Code::FailedPrecondition,
            &[&usage.volume_id, usage.target.to_str().unwrap(), &user],
        );
        drop(open);
        csi.unpublish(&usage).await.unwrap();
        assert!(!usage.target.exists());
    });
}

#[test]
fn a_volume_staged_at_two_paths_stays_until_both_are_unstaged() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, one) = (fixture.csi(), fixture.published("one").await);
        let other = Usage {
            target: fixture.machine.path("targets").join("other"),
            ..fixture
                .machine
                .usage("other", one.dataset(), &one.publish_context)
        };
        csi.stage(&other).await.unwrap();
        csi.publish(&other).await.unwrap();
        fs::write(one.target.join("file"), "both").unwrap();
        assert_eq!(fs::read_to_string(other.target.join("file")).unwrap(), "both");

        csi.unpublish(&one).await.unwrap();
        csi.unstage(&one).await.unwrap();
        assert!(!one.alias().exists());
        only_mount_at(&other.alias());
        assert_eq!(fs::read_to_string(other.target.join("file")).unwrap(), "both");
        let flockers = fixture.flocker.mount_of(1, one.dataset());
        assert_eq!(agent_unmounts(&flockers), Err(Errno::BUSY), "it is still pinned");
        assert!(
            !csi.stats(&other)
                .await
                .unwrap()
                .volume_condition
                .unwrap()
                .abnormal
        );
        assert_eq!(
            (fixture.machine.devices().len(), fixture.machine.records().len()),
            (1, 1)
        );

        csi.unpublish(&other).await.unwrap();
        csi.unstage(&other).await.unwrap();
        assert!(fixture.machine.devices().is_empty() && fixture.machine.records().is_empty());
        wait_until_agent_unmounts(&flockers).await;
    });
}

#[test]
fn a_staging_path_that_is_seen_at_two_places_is_staged_once() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (staging, copy) = (fixture.machine.path("staging"), fixture.machine.path("copy"));
        fs::create_dir(&copy).unwrap();
        rustix::mount::mount_bind(&staging, &copy).unwrap();
        let volume = fixture.csi().create("data").await;
        let context = fixture.csi().attach(volume, fixture.machine.node()).await;
        let usage = fixture
            .machine
            .usage("data", volume, &context)
            .with_mode(Mode::SingleNodeSingleWriter);
        for _ in 0..2 {
            fixture.csi().stage(&usage).await.unwrap();
            let copied = copy.join("data").join(volume.to_string());
            only_mount_at(&copied);
            fixture.csi().publish(&usage).await.unwrap();
            fixture.csi().unpublish(&usage).await.unwrap();
            fixture.csi().unstage(&usage).await.unwrap();
            assert!(
                Mounts::read().at(&copied).is_empty(),
                "the copy went with what it copies"
            );
        }
        assert!(fixture.machine.devices().is_empty() && fixture.machine.records().is_empty());
    });
}
