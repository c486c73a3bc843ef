//! Foreign mounts at, on, over and below the plugin's paths: reported, never hidden and never removed.

use host_fs::mount::testing::unmount;
use std::fs;

use flocker_embedded::faults::{Effect, RequestFault};
use rustix::mount::mount_bind;
use tonic::Code;

use super::mount_foreign;
use crate::node::{Fixture, assert_refused};
use crate::support::csi::Usage;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

const FOREIGN: &str = "tmpfs of foreign at";

fn take_away(path: &std::path::Path) {
    assert_eq!(
        Mounts::read().at(path).last().unwrap().source,
        "foreign",
        "it is still there"
    );
    unmount(path);
}

#[test]
fn a_foreign_mount_at_a_staging_path_is_refused_and_no_mount_is_left() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let csi = fixture.csi();
        let attached = fixture.attached("attached").await;
        let driven = fixture
            .machine
            .usage("driven", csi.create("driven").await, &[].into());
        for usage in [&driven, &attached] {
            let alias = usage.alias();
            fs::create_dir(&alias).unwrap();
            mount_foreign(&alias);
            let named = [alias.to_str().unwrap(), FOREIGN, "left unchanged"];
            assert_refused(csi.stage(usage).await, Code::FailedPrecondition, &named);
            assert!(fixture.machine.records().is_empty() && fixture.machine.devices().is_empty());
            assert_eq!(fixture.flocker.leaseholder(driven.dataset()).await, None);
            assert_refused(csi.unstage(usage).await, Code::FailedPrecondition, &named);
            assert_refused(
                csi.publish(usage).await,
                Code::FailedPrecondition,
                &["is not staged at", FOREIGN, "is mounted there"],
            );
            assert!(!usage.target.exists());
            take_away(&alias);
            csi.stage(usage).await.unwrap();
            only_mount_at(&alias);
            csi.unstage(usage).await.unwrap();
        }
    });
}

#[test]
fn a_foreign_mount_in_place_of_a_staging_that_began_leaves_no_lease_and_no_record() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let csi = fixture.csi();
        let usage = fixture
            .machine
            .usage("data", csi.create("data").await, &[].into());
        csi.stage(&usage).await.unwrap();
        unmount(usage.alias());
        mount_foreign(&usage.alias());
        assert_refused(
            csi.stage(&usage).await,
            Code::FailedPrecondition,
            &[usage.alias().to_str().unwrap(), FOREIGN],
        );
        assert!(fixture.machine.records().is_empty() && fixture.machine.devices().is_empty());
        assert_eq!(fixture.flocker.leaseholder(usage.dataset()).await, None);
        take_away(&usage.alias());
    });
}

#[test]
fn a_foreign_mount_at_a_target_is_named_by_every_call() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.staged("data").await);
        fs::create_dir(&usage.target).unwrap();
        mount_foreign(&usage.target);
        let named: &[&str] = &[
            &usage.volume_id,
            usage.target.to_str().unwrap(),
            FOREIGN,
            "not this plugin's",
        ];
        for answer in [csi.publish(&usage).await, csi.unpublish(&usage).await] {
            assert_refused(answer, Code::FailedPrecondition, named);
        }
        assert_refused(csi.stats(&usage).await, Code::NotFound, named);
        take_away(&usage.target);
        csi.publish(&usage).await.unwrap();
        only_mount_at(&usage.target);
    });
}

#[test]
fn a_foreign_mount_on_top_of_a_published_volume_is_named_by_every_call_and_both_stay() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        fs::write(usage.target.join("file"), "precious").unwrap();
        mount_foreign(&usage.target);
        let named: &[&str] = &[usage.target.to_str().unwrap(), FOREIGN, "not this plugin's"];
        // All mounts of a volume are peers, so a mount on one appears on all.
        assert_refused(
            csi.publish(&usage).await,
            Code::FailedPrecondition,
            &[&usage.volume_id, FOREIGN, "hidden under"],
        );
        assert_refused(csi.unpublish(&usage).await, Code::FailedPrecondition, named);
        fixture
            .assert_abnormal(&usage, &[named, &["hidden under"]].concat())
            .await;
        let stats = csi.stats(&usage).await.unwrap();
        assert_eq!(stats.usage.len(), 2, "the volume's own usage");
        assert_ne!(stats.usage[0].total, 0);
        assert_eq!(Mounts::read().at(&usage.target).len(), 2);
        assert_refused(
            csi.unstage(&usage).await,
            Code::FailedPrecondition,
            &[
                &usage.volume_id,
                "still published at",
                usage.target.to_str().unwrap(),
            ],
        );
        take_away(&usage.target);
        assert!(!fixture.condition(&usage).await.abnormal);
        assert_eq!(fs::read_to_string(usage.target.join("file")).unwrap(), "precious");
        fixture.clean_up(&usage).await;
    });
}

#[test]
fn a_foreign_mount_on_top_of_a_staged_volume_is_named_by_every_call_and_both_stay() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.staged("data").await);
        let alias = usage.alias();
        mount_foreign(&alias);
        let named = [alias.to_str().unwrap(), FOREIGN];
        assert_refused(csi.unstage(&usage).await, Code::FailedPrecondition, &named);
        assert_refused(
            csi.publish(&usage).await,
            Code::FailedPrecondition,
            &[FOREIGN, "hidden under"],
        );
        // A mount of the plugin is left under it, so this is not final.
        assert_refused(csi.stage(&usage).await, Code::Unavailable, &named);
        let at_staging = Usage {
            target: usage.staging.clone(),
            ..usage.clone()
        };
        fixture
            .assert_abnormal(&at_staging, &[FOREIGN, "hidden under"])
            .await;
        assert_eq!(Mounts::read().at(&alias).len(), 2);
        take_away(&alias);
        csi.stage(&usage).await.unwrap();
        only_mount_at(&alias);
        fixture.clean_up(&usage).await;
    });
}

#[test]
fn a_foreign_mount_over_the_directory_of_our_mounts_hides_nothing_from_us() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        let targets = fixture.machine.path("targets");
        mount_foreign(&targets);
        assert_refused(
            csi.unpublish(&usage).await,
            Code::FailedPrecondition,
            &[
                &usage.volume_id,
                usage.target.to_str().unwrap(),
                "hidden under",
                FOREIGN,
            ],
        );
        assert_refused(csi.stats(&usage).await, Code::NotFound, &[&usage.volume_id]);
        take_away(&targets);
        csi.unpublish(&usage).await.unwrap();

        mount_foreign(&usage.staging);
        let hidden: &[&str] = &[
            usage.alias().to_str().unwrap().to_owned().leak(),
            "hidden under",
            FOREIGN,
        ];
        assert_refused(csi.unstage(&usage).await, Code::FailedPrecondition, hidden);
        assert_refused(csi.stage(&usage).await, Code::Unavailable, hidden);
        assert_eq!(
            Mounts::read().at(&usage.alias()).len(),
            1,
            "no second one is made over it"
        );
        assert_eq!(fixture.machine.records().len(), 1);
        take_away(&usage.staging);
        csi.stage(&usage).await.unwrap();
        only_mount_at(&usage.alias());
        fixture.clean_up(&usage).await;
    });
}

#[test]
fn a_foreign_mount_below_a_target_or_a_staged_volume_keeps_it_and_is_named() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        let below = usage.target.join("below");
        fs::create_dir(&below).unwrap();
        mount_foreign(&below);
        assert_refused(
            csi.unpublish(&usage).await,
            Code::FailedPrecondition,
            &[
                &usage.volume_id,
                "is busy",
                "a mount exists at",
                below.to_str().unwrap(),
            ],
        );
        assert!(
            !fixture.condition(&usage).await.abnormal,
            "the volume itself is healthy"
        );
        csi.publish(&usage).await.unwrap();
        take_away(&below);
        csi.unpublish(&usage).await.unwrap();

        let below = usage.alias().join("below");
        mount_foreign(&below);
        assert_refused(
            csi.unstage(&usage).await,
            Code::FailedPrecondition,
            &[
                &usage.volume_id,
                "is busy",
                "a mount exists at",
                below.to_str().unwrap(),
            ],
        );
        take_away(&below);
        csi.unstage(&usage).await.unwrap();
        assert!(fixture.machine.records().is_empty());
    });
}

#[test]
fn a_foreign_mount_on_flockers_own_is_not_taken_for_the_volume() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.attached("data").await);
        fixture.flocker.reports(1, usage.dataset()).await;
        let flockers = fixture.flocker.mount_of(1, usage.dataset());
        mount_foreign(&flockers);
        assert_refused(
            csi.stage(&usage).await,
            Code::FailedPrecondition,
            &[
                FOREIGN,
                flockers.to_str().unwrap(),
                "lies on ext4",
                &usage.volume_id,
            ],
        );
        assert!(fixture.machine.records().is_empty() && fixture.machine.devices().is_empty());
        take_away(&flockers);
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();

        mount_foreign(&flockers);
        fixture
            .assert_abnormal(
                &usage,
                &["Flocker's mount at", flockers.to_str().unwrap(), "hidden"],
            )
            .await;
        let again = usage.at_target("again");
        assert_refused(
            csi.publish(&again).await,
            Code::FailedPrecondition,
            &[&usage.volume_id, "Flocker's mount at", flockers.to_str().unwrap()],
        );
        take_away(&flockers);
        csi.publish(&again).await.unwrap();
        csi.unpublish(&again).await.unwrap();
        fixture.clean_up(&usage).await;
    });
}

#[test]
fn a_foreign_mount_alone_where_flocker_mounts_is_not_taken_for_the_volume() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        // The plugin expects it where Flocker has not mounted it, and Flocker does not report where it has.
        machine.config.node.mount_root = machine.path("flocker");
        let fixture = Fixture::on(machine, flocker).await;
        let (csi, usage) = (fixture.csi(), fixture.attached("data").await);
        let unknown = Effect::Answer {
            status: 200,
            body: "[]".to_owned(),
        };
        let rule = RequestFault::new("unknown", unknown).on("GET", "/v1/state/datasets");
        fixture.flocker.embedded().faults().add(rule);
        let expected = fixture.machine.path("flocker").join(&usage.volume_id);
        fs::create_dir_all(&expected).unwrap();
        let directory = fixture.machine.path("directory");
        fs::create_dir(&directory).unwrap();
        for foreign in [FOREIGN, "the directory of a disk"] {
            if foreign == FOREIGN {
                mount_foreign(&expected);
            } else {
                mount_bind(&directory, &expected).unwrap();
            }
            let named: &[&str] = &[
                &usage.volume_id,
                expected.to_str().unwrap(),
                "is not what Flocker's agent mounts",
            ];
            assert_refused(csi.stage(&usage).await, Code::FailedPrecondition, named);
            assert!(fixture.machine.records().is_empty() && fixture.machine.devices().is_empty());
            assert_eq!(Mounts::read().at(&expected).len(), 1, "it stays");
            unmount(&expected);
        }
        fixture.flocker.embedded().faults().clear();
        csi.stage(&usage).await.unwrap();
        only_mount_at(&usage.alias());
        fixture.clean_up(&usage).await;
    });
}
