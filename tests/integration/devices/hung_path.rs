//! Paths of requests that lead through a file system that does not answer.

use std::collections::HashMap;
use std::time::Duration;

use csi_proto::v1::{NodeGetVolumeStatsRequest, ProbeRequest};
use flocker_csi::commands::serve::services::Part;
use tonic::Code;

use super::fuse::{Answers, Server};
use crate::kubelet::probes::{PROBES, address, becomes, get};
use crate::kubelet::readiness::{NODE_FAILS, Said, serves};
use crate::support::csi::{Usage, within};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

/// More than the threads that a runtime has for work that blocks.
const CALLS: usize = 600;

#[test]
fn calls_about_paths_that_hang_keep_few_threads_and_no_other_volume_waits() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[PROBES]).await;
        let volume = plugin.csi.create("data").await;
        let usage = machine.usage("data", volume, &HashMap::new());
        let hung = machine.path("hung");
        std::fs::create_dir(&hung).unwrap();
        let server = Server::mount(&hung, Answers::Everything);
        server.answers(Answers::Nothing);

        let calls = (0..CALLS).map(|number| {
            let request = NodeGetVolumeStatsRequest {
                volume_id: volume.to_string(),
                volume_path: hung.join(number.to_string()).join("volume").display().to_string(),
                ..Default::default()
            };
            let mut node = plugin.csi.node();
            async move { node.node_get_volume_stats(request).await }
        });
        for answer in futures::future::join_all(calls).await {
            let refused = answer.unwrap_err();
            assert_eq!(refused.code(), Code::Unavailable, "{}", refused.message());
        }
        let threads = std::fs::read_dir(format!("/proc/{}/task", plugin.id()))
            .unwrap()
            .count();
        assert!(threads < 60, "{threads} threads");

        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        only_mount_at(&usage.target);
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.csi.identity().probe(ProbeRequest {}).await.unwrap();
        let probes = address(&plugin).await;
        assert_eq!(
            get(probes, "/healthz").await.0,
            200,
            "a restart frees no thread that hangs"
        );
        Said {
            readyz: (
                503,
                "calls have waited for a file system on the way to their paths",
            ),
            healthz: 200,
            health: NODE_FAILS,
            log: "The check file_systems fails",
        }
        .by(&plugin, probes, "a file system hangs")
        .await;

        server.answers(Answers::Everything);
        becomes(probes, 200, "ready\n").await;
        serves(&plugin, Part::Node, true).await;
        plugin.kill().await;
    });
}

#[test]
fn a_target_that_hangs_keeps_no_other_call_about_the_volume_from_its_end() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        let usage = machine.usage("data", volume, &HashMap::new());
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        let hung = machine.path("hung");
        std::fs::create_dir(&hung).unwrap();
        let server = Server::mount(&hung, Answers::Everything);
        server.answers(Answers::Nothing);
        let hangs = Usage {
            target: hung.join("target"),
            ..usage.clone()
        };
        let request = within(Duration::from_secs(2), hangs.to_publish());
        let refused = plugin.csi.node().node_publish_volume(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded, "{}", refused.message());
        let hangs = hangs.at_target("other");
        let request = within(Duration::from_secs(2), hangs.to_unpublish());
        let refused = plugin
            .csi
            .node()
            .node_unpublish_volume(request)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded, "{}", refused.message());

        plugin.csi.publish(&usage).await.unwrap();
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        assert_eq!(flocker.leaseholder(volume).await, None);
        server.answers(Answers::Everything);
        plugin.kill().await;
    });
}
