//! Staging paths that do not exist: Docker Swarm makes neither them nor the directories above.

use host_fs::mount::testing::unmount;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use tonic::Code;

use super::{Fixture, assert_refused};
use crate::support::csi::Usage;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

/// The same volume, staged where nothing exists below an existing directory.
fn at_missing(fixture: &Fixture, usage: &Usage) -> Usage {
    let name = usage.staging.file_name().unwrap();
    Usage {
        staging: fixture.machine.path("staging/made/deep").join(name),
        ..usage.clone()
    }
}

#[test]
fn a_missing_staging_path_is_made_and_removed_with_the_last_volume_below_it() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let csi = fixture.csi();
        let one = at_missing(&fixture, &fixture.attached("one").await);
        let two = at_missing(&fixture, &fixture.attached("two").await);
        for usage in [&one, &two] {
            csi.stage(usage).await.unwrap();
            csi.stage(usage).await.unwrap();
            csi.publish(usage).await.unwrap();
            only_mount_at(&usage.alias());
            for made in [usage.staging.as_path(), usage.staging.parent().unwrap()] {
                assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o7777, 0o750);
            }
        }
        for (usage, left) in [(&one, true), (&two, false)] {
            csi.unpublish(usage).await.unwrap();
            csi.unstage(usage).await.unwrap();
            csi.unstage(usage).await.unwrap();
            assert!(!usage.staging.exists());
            assert_eq!(fixture.machine.path("staging/made").exists(), left);
        }
        assert!(fixture.machine.path("staging").is_dir());
        assert!(fixture.machine.records().is_empty());
    });
}

#[test]
fn what_others_keep_in_a_made_directory_stays_and_keeps_no_volume() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let csi = fixture.csi();
        let usage = at_missing(&fixture, &fixture.attached("data").await);
        csi.stage(&usage).await.unwrap();
        let file = usage.staging.with_file_name("file");
        fs::write(&file, "precious").unwrap();
        csi.unstage(&usage).await.unwrap();
        assert!(!usage.staging.exists());
        assert_eq!(fs::read_to_string(file).unwrap(), "precious");
        assert!(fixture.machine.records().is_empty());
        // A directory that existed is not the plugin's.
        csi.stage(&usage).await.unwrap();
        csi.unstage(&usage).await.unwrap();
        assert!(!usage.staging.exists() && usage.staging.parent().unwrap().is_dir());
    });
}

#[test]
fn a_staging_that_fails_leaves_no_directory_that_it_made() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let csi = fixture.csi();
        let usage = at_missing(&fixture, &fixture.attached("data").await);
        csi.detach(usage.dataset(), fixture.machine.node()).await;
        assert_refused(
            csi.stage(&usage).await,
            Code::FailedPrecondition,
            &["no node holds its lease"],
        );
        assert!(!fixture.machine.path("staging/made").exists());
        assert!(fixture.machine.records().is_empty());
    });
}

#[test]
fn directories_that_were_made_before_a_reboot_are_removed() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let usage = at_missing(&fixture, &fixture.attached("data").await);
        fixture.csi().stage(&usage).await.unwrap();
        let Fixture {
            flocker: _flocker,
            machine,
            plugin,
        } = fixture;
        plugin.stop().await;
        unmount(usage.alias());
        machine.age_records();
        let plugin = machine.plugin().await;
        assert!(machine.records().is_empty());
        assert!(!machine.path("staging/made").exists());
        plugin.stop().await;
    });
}

#[test]
fn no_staging_path_is_made_where_the_host_would_not_see_it() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let usage = at_missing(&fixture, &fixture.attached("data").await);
        let private = fixture.machine.path("staging/made");
        fs::create_dir(&private).unwrap();
        mount("private", &private, "tmpfs", MountFlags::empty(), None).unwrap();
        mount_change(&private, MountPropagationFlags::PRIVATE).unwrap();
        assert_refused(
            fixture.csi().stage(&usage).await,
            Code::FailedPrecondition,
            &["private", private.to_str().unwrap()],
        );
        assert_eq!(fs::read_dir(&private).unwrap().count(), 0);
        unmount(&private);
    });
}
