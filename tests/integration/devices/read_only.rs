//! A file system that turned read-only after an error.

use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};
use tonic::Code;

use super::{ext4_of, stop_on_errors, sync};
use crate::monitoring::{free_address, shows};
use crate::node::{Fixture, assert_refused};
use crate::support::csi::Usage;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

/// Makes ext4 detect an error, as if its own structures were damaged.
fn break_file_system(fixture: &Fixture, usage: &Usage) {
    let flockers = only_mount_at(&fixture.flocker.mount_of(1, usage.dataset()));
    fs::write(
        ext4_of(&flockers.device).join("trigger_fs_error"),
        "damaged on purpose",
    )
    .unwrap();
}

#[test]
fn a_file_system_that_turned_read_only_is_abnormal_and_published_for_reading_only() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        let at = free_address();
        machine.config.plugin.metrics_address = Some(at);
        let fixture = Fixture::on(machine, flocker).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        fs::write(usage.target.join("file"), "precious").unwrap();
        assert!(sync(&usage.target));
        stop_on_errors(&fixture.flocker.mount_of(1, usage.dataset()));
        break_file_system(&fixture, &usage);
        shows(at, &[(r#"volumes_abnormal{reason="read_only"}"#, 1.0)]).await;
        let refused = fs::write(usage.target.join("more"), "").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);

        fixture
            .assert_abnormal(&usage, &["has become read-only", "repair"])
            .await;
        assert_eq!(csi.stats(&usage).await.unwrap().usage.len(), 2);
        // Existing mounts stay; a new one is for rescuing the data.
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();
        let again = fixture.assert_read_only_to_another_target(&usage).await;
        let reading = again.read_only();
        csi.publish(&reading).await.unwrap();
        assert_eq!(
            fs::read_to_string(reading.target.join("file")).unwrap(),
            "precious"
        );
        csi.unpublish(&reading).await.unwrap();
        fixture.clean_up(&usage).await;

        assert_refused(
            csi.stage(&usage).await,
            Code::FailedPrecondition,
            &[
                &usage.volume_id,
                fixture.flocker.mount_of(1, usage.dataset()).to_str().unwrap(),
                "has become read-only",
                "repair the file system first",
            ],
        );
        assert_eq!(fs::read_dir(&usage.staging).unwrap().count(), 0);
        assert!(fixture.machine.records().is_empty() && fixture.machine.devices().is_empty());
    });
}

#[test]
fn a_file_system_that_was_repaired_is_staged_again() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        fs::write(usage.target.join("file"), "precious").unwrap();
        assert!(sync(&usage.target));
        stop_on_errors(&fixture.flocker.mount_of(1, usage.dataset()));
        break_file_system(&fixture, &usage);
        fixture.clean_up(&usage).await;

        // The operator unstages the volume, so that Flocker unmounts it, and repairs it while it is not mounted.
        let flockers = fixture.flocker.mount_of(1, usage.dataset());
        let device = only_mount_at(&flockers).source;
        eventually("the volume is repaired while it is not mounted", async || {
            unmount(&flockers, UnmountFlags::empty()).ok();
            let repaired = Command::new("e2fsck").args(["-fy", &device]).output().unwrap();
            (repaired.status.code() <= Some(1)).then_some(())
        })
        .await;
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();
        assert_eq!(fs::read_to_string(usage.target.join("file")).unwrap(), "precious");
        fs::write(usage.target.join("more"), "writable").unwrap();
        let condition = fixture.condition(&usage).await;
        assert!(!condition.abnormal, "{}", condition.message);
    });
}

#[test]
fn errors_that_a_file_system_survived_are_reported() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        assert!(!fixture.condition(&usage).await.abnormal);
        break_file_system(&fixture, &usage);
        fs::write(usage.target.join("file"), "still writable").unwrap();
        let device = only_mount_at(&usage.target).device;
        eventually(
            "ext4 has counted it, which it does in the background",
            async || {
                let count = fs::read_to_string(ext4_of(&device).join("errors_count")).unwrap();
                (count.trim() == "1").then_some(())
            },
        )
        .await;
        fixture
            .assert_abnormal(&usage, &[&device, "1 errors since its last check", "repair"])
            .await;
        csi.publish(&usage.at_target("again")).await.unwrap();
        csi.unpublish(&usage.at_target("again")).await.unwrap();
        fixture.clean_up(&usage).await;
    });
}
