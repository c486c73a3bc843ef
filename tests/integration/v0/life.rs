//! The life of a volume, and the directory of its target, which the orchestrator owns.

use host_fs::mount::testing::unmount;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;

use csi_proto::v0::volume_capability::access_mode::Mode;
use rustix::mount::{MountFlags, mount};
use tonic::Code;

use super::{Old, SMALLEST, assert_empty, capability, to_create, to_publish};
use crate::node::paths::hide_below;
use crate::node::{Fixture, assert_refused};
use crate::support::csi::Usage;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;
use crate::support::{eventually, flocker::Flocker, machine::Machine};

/// A fixture with a volume that is staged, and a target that the orchestrator has made.
async fn staged() -> (Fixture, Old, Usage) {
    let fixture = Fixture::start(1).await;
    let old = Old::beside(fixture.csi());
    let usage = fixture.attached("data").await;
    old.stage(&usage).await.unwrap();
    fs::create_dir(&usage.target).unwrap();
    (fixture, old, usage)
}

#[test]
fn a_volume_lives_its_life_over_v0_and_the_directories_stay_the_orchestrators() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (old, node) = (Old::beside(fixture.csi()), fixture.machine.node());
        let volume = old.create(to_create("data")).await.unwrap();
        assert_eq!(volume.capacity_bytes, SMALLEST);
        assert!(volume.attributes.is_empty() && volume.accessible_topology.is_empty());
        assert_eq!(old.create(to_create("data")).await.unwrap(), volume);
        let info = old.attach(&volume.id, node).await.unwrap();
        assert!(!info.is_empty());
        let usage = fixture.machine.usage("data", volume.id.parse().unwrap(), &info);
        old.stage(&usage).await.unwrap();

        fs::create_dir(&usage.target).unwrap();
        for _ in 0..2 {
            old.publish(&usage).await.unwrap();
            only_mount_at(&usage.target);
        }
        fs::write(usage.target.join("file"), "precious").unwrap();
        for _ in 0..2 {
            old.unpublish(&usage).await.unwrap();
            assert_empty(&usage.target);
            assert_eq!(Mounts::read().at(&usage.target), []);
        }

        // Read-only in the same directory: the data is readable, and nothing can be added.
        let reader = usage.read_only();
        old.publish(&reader).await.unwrap();
        assert_eq!(fs::read_to_string(usage.target.join("file")).unwrap(), "precious");
        let refused = fs::write(usage.target.join("more"), "").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
        old.unpublish(&reader).await.unwrap();

        for _ in 0..2 {
            old.unstage(&usage).await.unwrap();
            assert_empty(&usage.staging);
        }
        assert_empty(&usage.target);
        for _ in 0..2 {
            old.detach(&volume.id, node).await.unwrap();
        }
        assert_eq!(fixture.flocker.leaseholder(usage.dataset()).await, None);
        for _ in 0..2 {
            old.delete(&volume.id).await.unwrap();
        }
        eventually("the volume is destroyed", async || {
            fixture.flocker.backing_files().is_empty().then_some(())
        })
        .await;
        assert!(fixture.machine.records().is_empty() && fixture.machine.devices().is_empty());
    });
}

#[test]
fn a_target_that_a_v0_orchestrator_has_not_made_is_refused_and_not_made_for_it() {
    in_own_namespace(|| async {
        let (_stand, old, usage) = staged().await;
        fs::remove_dir(&usage.target).unwrap();
        assert_refused(
            old.publish(&usage).await,
            Code::InvalidArgument,
            &[
                &usage.volume_id,
                "target_path",
                usage.target.to_str().unwrap(),
                "does not exist: in csi.v0 the orchestrator makes that directory first",
            ],
        );
        assert!(!usage.target.exists());
        // A volume that does not exist is not published.
        old.unpublish(&usage).await.unwrap();
        assert!(!usage.target.exists());
        fs::create_dir(&usage.target).unwrap();
        old.publish(&usage).await.unwrap();
        only_mount_at(&usage.target);
    });
}

#[test]
fn a_v0_publish_that_fails_leaves_the_orchestrators_directory() {
    in_own_namespace(|| async {
        let (fixture, old, usage) = staged().await;
        let mut with_flags = to_publish(&usage);
        with_flags.volume_capability = Some(capability(Mode::SingleNodeWriter, &["discard"]));
        assert_refused(
            old.node().node_publish_volume(with_flags).await,
            Code::FailedPrecondition,
            &["discard"],
        );
        assert_empty(&usage.target);

        mount("foreign", &usage.target, "tmpfs", MountFlags::empty(), None).unwrap();
        for answer in [old.publish(&usage).await, old.unpublish(&usage).await] {
            assert_refused(answer, Code::FailedPrecondition, &["foreign"]);
        }
        unmount(&usage.target);
        assert_empty(&usage.target);

        old.unstage(&usage).await.unwrap();
        assert_refused(
            old.publish(&usage).await,
            Code::FailedPrecondition,
            &["NodeStageVolume"],
        );
        assert_empty(&usage.target);
        assert_eq!(Mounts::read().below(&fixture.machine.path("")), []);
    });
}

#[test]
fn data_in_a_v0_target_is_neither_hidden_nor_removed_with_it() {
    in_own_namespace(|| async {
        let (_stand, old, usage) = staged().await;
        let file = usage.target.join("file");
        fs::write(&file, "precious").unwrap();
        assert_refused(
            old.unpublish(&usage).await,
            Code::FailedPrecondition,
            &[&usage.volume_id, usage.target.to_str().unwrap(), "not empty"],
        );
        assert_refused(
            old.publish(&usage).await,
            Code::FailedPrecondition,
            &[usage.target.to_str().unwrap(), "\"file\""],
        );
        assert_eq!(Mounts::read().at(&usage.target), []);
        fs::remove_file(&file).unwrap();
        old.publish(&usage).await.unwrap();
        // As an earlier release let a mount hide it.
        hide_below(&usage.target, "precious");
        old.unpublish(&usage).await.unwrap();
        assert_empty(&usage.target);
        let kept = usage.target.with_file_name("data.kept-1").join("file");
        assert_eq!(fs::read_to_string(kept).unwrap(), "precious");
    });
}

#[test]
fn a_v0_target_that_is_no_directory_or_is_in_use_stays_as_it_is() {
    in_own_namespace(|| async {
        let (fixture, old, usage) = staged().await;
        let file = usage.at_target("file");
        fs::write(&file.target, "precious").unwrap();
        let link = usage.at_target("link");
        symlink(&usage.target, &link.target).unwrap();
        for usage in [&file, &link] {
            let target = usage.target.to_str().unwrap();
            for answer in [old.publish(usage).await, old.unpublish(usage).await] {
                assert_refused(answer, Code::InvalidArgument, &[target]);
            }
        }
        assert_eq!(fs::read_to_string(&file.target).unwrap(), "precious");
        assert!(link.target.is_symlink());
        assert_eq!(Mounts::read().at(&usage.target), []);

        old.publish(&usage).await.unwrap();
        let user = File::create(usage.target.join("open")).unwrap();
        let busy = [usage.target.to_str().unwrap(), &std::process::id().to_string()];
        assert_refused(old.unpublish(&usage).await, Code::FailedPrecondition, &busy);
        only_mount_at(&usage.target);
        drop(user);
        eventually("no process uses it", async || old.unpublish(&usage).await.ok()).await;
        assert_empty(&usage.target);
        old.unstage(&usage).await.unwrap();
        assert!(fixture.machine.records().is_empty());
    });
}

#[test]
fn no_secret_of_a_v0_life_is_in_the_most_talkative_log() {
    const CANARY: &str = "canary-in-a-coal-mine";
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&["--log=trace"]).await;
        let old = Old::beside(&plugin.csi);
        let secrets = || [("password".to_owned(), CANARY.to_owned())].into();

        let mut create = to_create("data");
        create.controller_create_secrets = secrets();
        let volume = old.create(create).await.unwrap().id;
        let mut attach = super::to_attach(&volume, machine.node());
        attach.controller_publish_secrets = secrets();
        let attached = old.controller().controller_publish_volume(attach).await.unwrap();
        let info = attached.into_inner().publish_info;
        let usage = machine.usage("data", volume.parse().unwrap(), &info);
        let mut stage = super::to_stage(&usage);
        stage.node_stage_secrets = secrets();
        old.node().node_stage_volume(stage).await.unwrap();
        fs::create_dir(&usage.target).unwrap();
        let mut publish = to_publish(&usage);
        publish.node_publish_secrets = secrets();
        old.node().node_publish_volume(publish.clone()).await.unwrap();
        let flag = format!("password={CANARY}");
        publish.volume_capability = Some(capability(Mode::SingleNodeWriter, &[&flag]));
        assert_refused(
            old.node().node_publish_volume(publish).await,
            Code::FailedPrecondition,
            &["mount_flags", "password"],
        );
        old.unpublish(&usage).await.unwrap();
        old.unstage(&usage).await.unwrap();
        let detach = csi_proto::v0::ControllerUnpublishVolumeRequest {
            volume_id: volume.clone(),
            node_id: machine.node().to_string(),
            controller_unpublish_secrets: secrets(),
        };
        old.controller()
            .controller_unpublish_volume(detach)
            .await
            .unwrap();
        let delete = csi_proto::v0::DeleteVolumeRequest {
            volume_id: volume,
            controller_delete_secrets: secrets(),
        };
        old.controller().delete_volume(delete).await.unwrap();

        let log = plugin.logged("/csi.v0.Controller/DeleteVolume").await;
        for method in [
            "/csi.v0.Controller/CreateVolume",
            "/csi.v0.Node/NodePublishVolume",
        ] {
            assert!(log.contains(method), "{method} is logged");
        }
        assert!(log.contains("TRACE"), "everything is logged");
        let leaking: Vec<_> = log.lines().filter(|line| line.contains(CANARY)).collect();
        assert_eq!(leaking, [""; 0]);
        plugin.kill().await;
    });
}
