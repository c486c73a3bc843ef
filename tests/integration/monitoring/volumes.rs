//! The volumes of a node in its metrics.

use std::fs::File;
use std::net::SocketAddr;
use std::time::Duration;

use csi_proto::v1::NodeUnpublishVolumeRequest;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tonic::Code;

use super::shows;
use crate::kubelet::probes::{PROBES, address};
use crate::support::csi::{Usage, within};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;

const NOTHING_STAGED: [(&str, f64); 3] = [
    ("volumes_staged", 0.0),
    ("volumes_published", 0.0),
    ("volumes_unpinned", 0.0),
];

/// Hides a volume under another mount, and looks for what is said of it until that is unmounted.
async fn is_logged_and_counted_while_it_is_hidden(plugin: &Process, at: SocketAddr, usage: &Usage) {
    mount("foreign", usage.alias(), "tmpfs", MountFlags::empty(), None).unwrap();
    shows(at, &[(r#"volumes_abnormal{reason="hidden"}"#, 1.0)]).await;
    let abnormal = format!("Volume {} is abnormal: hidden under", usage.volume_id);
    let log = plugin.logged(&abnormal).await;
    let line = log.lines().find(|line| line.contains(&abnormal)).unwrap();
    assert!(line.contains("volume.name=two"), "{line}");
    unmount(usage.alias(), UnmountFlags::empty()).unwrap();
    plugin
        .logged(&format!("Volume {} is healthy again", usage.volume_id))
        .await;
    shows(at, &[(r#"volumes_abnormal{reason="hidden"}"#, 0.0)]).await;
}

#[test]
fn volumes_are_counted_by_their_state_and_each_fault_by_its_reason() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        // So that the leases are read often.
        let flags = [PROBES, "--abandoned-grace=1s"];
        let plugin = machine.process(&flags).await;
        let at = address(&plugin).await;
        shows(at, &NOTHING_STAGED).await;

        let mut usages = Vec::new();
        for name in ["one", "two"] {
            let volume = plugin.csi.create(name).await;
            let context = plugin.csi.attach(volume, machine.node()).await;
            let usage = machine.usage(name, volume, &context);
            plugin.csi.stage(&usage).await.unwrap();
            plugin.csi.publish(&usage).await.unwrap();
            usages.push(usage);
        }
        plugin.csi.publish(&usages[0].at_target("again")).await.unwrap();
        plugin.csi.unpublish(&usages[1]).await.unwrap();
        let healthy = [
            ("volumes_staged", 2.0),
            ("volumes_published", 1.0),
            ("volumes_unpinned", 0.0),
            (r#"volumes_abnormal{reason="not_leased"}"#, 0.0),
            (r#"volumes_abnormal{reason="flocker_unmounted"}"#, 0.0),
            (r#"mounts_total{operation="stage",outcome="done"}"#, 2.0),
            (r#"mounts_total{operation="publish",outcome="done"}"#, 3.0),
            (r#"mounts_total{operation="unpublish",outcome="done"}"#, 1.0),
        ];
        shows(at, &healthy).await;

        is_logged_and_counted_while_it_is_hidden(&plugin, at, &usages[1]).await;

        // A process uses the volume at its target.
        let open = File::create(usages[0].target.join("file")).unwrap();
        let request = within(Duration::from_secs(20), usages[0].to_unpublish());
        let refused = plugin.csi.node().node_unpublish_volume(request).await;
        assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
        shows(
            at,
            &[(r#"mounts_total{operation="unpublish",outcome="busy"}"#, 1.0)],
        )
        .await;
        drop(open);

        unmount(flocker.mount_of(1, usages[1].dataset()), UnmountFlags::DETACH).unwrap();
        flocker
            .client()
            .await
            .release_lease(usages[0].dataset())
            .await
            .unwrap();
        let broken = [
            ("volumes_staged", 2.0),
            (r#"volumes_abnormal{reason="flocker_unmounted"}"#, 1.0),
            (r#"volumes_abnormal{reason="not_leased"}"#, 1.0),
        ];
        shows(at, &broken).await;
        plugin.kill().await;

        // Without Flocker's mount the next process cannot hold it.
        let plugin = machine.process(&flags).await;
        let at = address(&plugin).await;
        let unpinned = [
            ("volumes_staged", 2.0),
            ("volumes_published", 1.0),
            ("volumes_unpinned", 1.0),
        ];
        shows(at, &unpinned).await;
        for usage in &usages {
            for target in [&usage.target, &usage.at_target("again").target] {
                let request = NodeUnpublishVolumeRequest {
                    volume_id: usage.volume_id.clone(),
                    target_path: target.display().to_string(),
                };
                plugin.csi.node().node_unpublish_volume(request).await.unwrap();
            }
            plugin.csi.unstage(usage).await.unwrap();
        }
        shows(at, &NOTHING_STAGED).await;
        plugin.kill().await;
    });
}

#[test]
fn a_lease_that_cannot_be_released_and_a_lost_race_for_one_are_counted() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[PROBES]).await;
        let at = address(&plugin).await;
        let volume = plugin.csi.create("data").await;
        // Without a context, staging takes the lease.
        let usage = machine.usage("data", volume, &[].into());
        plugin.csi.stage(&usage).await.unwrap();
        let request = within(
            Duration::from_secs(20),
            crate::support::csi::to_attach(volume, flocker.node(2)),
        );
        plugin.csi.try_attach(request).await.unwrap_err();
        shows(at, &[("lease_conflicts_total", 1.0)]).await;

        let faults = flocker.embedded().faults();
        faults.change(|plan| plan.control_stopped = true);
        faults.until_in_force().await;
        plugin.csi.unstage(&usage).await.unwrap();
        shows(at, &[("lease_releases_pending", 1.0), ("volumes_staged", 0.0)]).await;
        faults.clear();
        shows(at, &[("lease_releases_pending", 0.0)]).await;
        assert_eq!(flocker.leaseholder(volume).await, None);
        plugin.kill().await;
    });
}

#[test]
fn a_volume_that_an_operation_is_unmounting_is_not_abnormal() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        // So that faults are looked for often.
        let plugin = machine.process(&["--abandoned-grace=1s"]).await;
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        for _ in 0..400 {
            plugin.csi.stage(&usage).await.unwrap();
            plugin.csi.unstage(&usage).await.unwrap();
        }
        let log = plugin.log();
        assert!(!log.contains("is abnormal"), "{log}");
        plugin.kill().await;
    });
}
