//! Refusals because of existing mounts and files, and the state after a refusal.

use host_fs::mount::testing::unmount;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::mount::{MountFlags, mount};
use tonic::Code;

use super::{Fixture, assert_refused, unknown_id, wait_until_agent_unmounts};
use crate::support::csi::{Usage, within};
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

/// Mounts a file system that belongs to no volume.
fn mount_foreign(at: &Path) {
    mount("foreign", at, "tmpfs", MountFlags::empty(), None).unwrap();
}

/// Checks that staging has left nothing, as after an error that the kubelet treats as final.
fn assert_nothing_left(fixture: &Fixture, usage: &Usage) {
    assert_eq!(fs::read_dir(&usage.staging).unwrap().count(), 0);
    assert_eq!(Mounts::read().below(&usage.staging), []);
    assert!(
        fixture.machine.records().is_empty(),
        "{:?}",
        fixture.machine.records()
    );
    assert!(
        fixture.machine.devices().is_empty(),
        "{:?}",
        fixture.machine.devices()
    );
}

#[test]
fn a_volume_that_is_not_this_nodes_is_not_staged_and_nothing_of_it_is_left() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let (csi, client) = (fixture.csi(), fixture.flocker.client().await);
        let (first, second) = (fixture.flocker.node(1), fixture.flocker.node(2));
        let usage = fixture.attached("data").await;
        let dataset = usage.dataset();
        fixture.flocker.reports(1, dataset).await;

        csi.detach(dataset, first).await;
        assert_refused(
            csi.stage(&usage).await,
            Code::FailedPrecondition,
            &[
                &usage.volume_id,
                "no node holds its lease",
                "ControllerPublishVolume",
            ],
        );
        assert_nothing_left(&fixture, &usage);
        // No pin on Flocker's mount is left either.
        let flockers = fixture.flocker.mount_of(1, dataset);
        wait_until_agent_unmounts(&flockers).await;

        csi.attach(dataset, first).await;
        client.move_dataset(dataset, second).await.unwrap();
        assert_refused(
            csi.stage(&usage).await,
            Code::FailedPrecondition,
            &[
                &usage.volume_id,
                &second.to_string(),
                "call ControllerPublishVolume again",
            ],
        );
        assert_nothing_left(&fixture, &usage);

        csi.detach(dataset, first).await;
        csi.attach(dataset, second).await;
        for context in [&usage.publish_context, &HashMap::default()] {
            let usage = fixture.machine.usage("data", dataset, context);
            // A node that attaches for itself waits for the lease as long as its caller does.
            let request = within(Duration::from_secs(8), usage.to_stage());
            assert_refused(
                csi.node().node_stage_volume(request).await,
                Code::FailedPrecondition,
                &[&usage.volume_id, &first.to_string(), &second.to_string()],
            );
            assert_nothing_left(&fixture, &usage);
            assert_eq!(fixture.flocker.leaseholder(dataset).await, Some(second));
        }

        csi.detach(dataset, second).await;
        csi.delete(dataset).await.unwrap();
        for context in [&usage.publish_context, &HashMap::default()] {
            let usage = fixture.machine.usage("data", dataset, context);
            assert_refused(csi.stage(&usage).await, Code::NotFound, &[&usage.volume_id]);
            assert_nothing_left(&fixture, &usage);
        }
        assert_eq!(fixture.flocker.leaseholder(dataset).await, None);
    });
}

#[test]
fn a_volume_is_published_only_where_it_is_staged() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.attached("data").await);
        let staging = usage.staging.to_str().unwrap();
        let refused: &[&str] = &[&usage.volume_id, "NodeStageVolume"];
        assert_refused(
            csi.publish(&usage).await,
            Code::FailedPrecondition,
            &[refused, &[staging]].concat(),
        );
        let mut unnamed = usage.to_publish();
        unnamed.staging_target_path.clear();
        assert_refused(
            csi.node().node_publish_volume(unnamed).await,
            Code::FailedPrecondition,
            &[refused, &["staging_target_path"]].concat(),
        );
        csi.stage(&usage).await.unwrap();
        let elsewhere = fixture
            .machine
            .usage("elsewhere", usage.dataset(), &usage.publish_context);
        let other = fixture
            .machine
            .usage("data", unknown_id(), &usage.publish_context);
        for wrong in [elsewhere, other] {
            assert_refused(
                csi.publish(&wrong).await,
                Code::FailedPrecondition,
                &[&wrong.volume_id, wrong.staging.to_str().unwrap()],
            );
            assert!(!wrong.target.exists());
        }
        csi.publish(&usage).await.unwrap();
    });
}

#[test]
fn a_foreign_mount_is_named_and_left_alone() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.attached("data").await);
        fs::create_dir(usage.alias()).unwrap();
        mount_foreign(&usage.alias());
        for answer in [csi.stage(&usage).await, csi.unstage(&usage).await] {
            // Staging fails finally only once nothing of it is left, which the foreign mount prevents.
            let refused = answer.unwrap_err();
            assert!(
                [Code::FailedPrecondition, Code::Unavailable].contains(&refused.code()),
                "{refused}"
            );
            for part in [usage.alias().to_str().unwrap(), "foreign"] {
                assert!(refused.message().contains(part), "{}", refused.message());
            }
        }
        assert_eq!(only_mount_at(&usage.alias()).source, "foreign");
        unmount(usage.alias());
        csi.stage(&usage).await.unwrap();

        fs::create_dir(&usage.target).unwrap();
        mount_foreign(&usage.target);
        for answer in [csi.publish(&usage).await, csi.unpublish(&usage).await] {
            assert_refused(
                answer,
                Code::FailedPrecondition,
                &[&usage.volume_id, usage.target.to_str().unwrap(), "foreign"],
            );
        }
        assert_eq!(only_mount_at(&usage.target).source, "foreign");
        unmount(&usage.target);
        csi.publish(&usage).await.unwrap();
        only_mount_at(&usage.target);
    });
}

#[test]
fn a_target_of_another_volume_is_not_taken_and_not_unpublished() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, one) = (fixture.csi(), fixture.published("one").await);
        let two = Usage {
            target: one.target.clone(),
            ..fixture.staged("two").await
        };
        for answer in [csi.publish(&two).await, csi.unpublish(&two).await] {
            assert_refused(
                answer,
                Code::FailedPrecondition,
                &[&two.volume_id, one.target.to_str().unwrap(), &one.volume_id],
            );
        }
        let unknown = Usage {
            volume_id: "fake-vol-id".to_owned(),
            ..one.clone()
        };
        assert_refused(
            csi.unpublish(&unknown).await,
            Code::FailedPrecondition,
            &["fake-vol-id", &one.volume_id],
        );
        only_mount_at(&one.target);
    });
}

#[test]
fn data_below_a_target_that_is_not_mounted_is_never_removed() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.staged("data").await);
        fs::create_dir(&usage.target).unwrap();
        fs::write(usage.target.join("file"), "precious").unwrap();
        assert_refused(
            csi.unpublish(&usage).await,
            Code::FailedPrecondition,
            &[&usage.volume_id, usage.target.to_str().unwrap(), "not empty"],
        );
        assert_eq!(fs::read_to_string(usage.target.join("file")).unwrap(), "precious");
    });
}
