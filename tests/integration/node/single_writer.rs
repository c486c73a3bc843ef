//! A volume that may have one target, and a target that is no longer where it was.

use host_fs::mount::testing::unmount;
use std::fs;
use std::path::Path;

use csi_proto::v1::volume_capability::access_mode::Mode;
use rustix::mount::{MountFlags, mount};
use tonic::Code;

use super::{Fixture, assert_refused};
use crate::support::csi::{Csi, Usage};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

/// The volume with the access mode, at a target with a directory of its own.
fn single(usage: &Usage) -> Usage {
    let directory = usage.target.with_file_name("pod");
    fs::create_dir_all(&directory).unwrap();
    Usage {
        target: directory.join("mount"),
        ..usage.with_mode(Mode::SingleNodeSingleWriter)
    }
}

async fn refuses_a_second_target(csi: &Csi, usage: &Usage, other: &Path) {
    let second = usage.at_target("second");
    for _ in 0..2 {
        assert_refused(
            csi.publish(&second).await,
            Code::FailedPrecondition,
            &["SINGLE_NODE_SINGLE_WRITER", other.to_str().unwrap()],
        );
    }
    assert!(!second.target.exists());
}

#[test]
fn a_target_below_a_directory_that_was_renamed_still_counts() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let usage = single(&fixture.staged("data").await);
        fixture.csi().publish(&usage).await.unwrap();
        let moved = usage.target.parent().unwrap().with_file_name("moved");
        fs::rename(usage.target.parent().unwrap(), &moved).unwrap();
        fs::create_dir(usage.target.parent().unwrap()).unwrap();
        let moved = moved.join("mount");
        only_mount_at(&moved);
        refuses_a_second_target(fixture.csi(), &usage, &moved).await;
        let usage = Usage {
            target: moved,
            ..usage
        };
        fixture.csi().unpublish(&usage).await.unwrap();
        fixture.csi().publish(&usage.at_target("second")).await.unwrap();
    });
}

#[test]
fn a_target_that_is_hidden_still_counts() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let usage = single(&fixture.staged("data").await);
        fixture.csi().publish(&usage).await.unwrap();
        let above = usage.target.parent().unwrap();
        mount("over", above, "tmpfs", MountFlags::empty(), None).unwrap();
        let elsewhere = Usage {
            target: above.with_file_name("elsewhere"),
            ..usage.clone()
        };
        refuses_a_second_target(fixture.csi(), &elsewhere, &usage.target).await;
        unmount(above);
        fixture.csi().unpublish(&usage).await.unwrap();
        fixture.csi().publish(&elsewhere).await.unwrap();
    });
}

#[test]
fn a_target_of_an_earlier_plugin_whose_records_are_lost_still_counts() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = single(&machine.usage("data", volume, &context));
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        plugin.kill().await;
        fs::remove_dir_all(&machine.config.node.state_dir).unwrap();

        let plugin = machine.process(&[]).await;
        plugin.csi.stage(&usage).await.unwrap();
        refuses_a_second_target(&plugin.csi, &usage, &usage.target).await;
        plugin.csi.publish(&usage).await.unwrap();
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.publish(&usage.at_target("second")).await.unwrap();
        plugin.kill().await;
    });
}
