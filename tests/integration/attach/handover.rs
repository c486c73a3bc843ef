//! Volumes that move from one node to another while the first one releases them slowly, restarts, or lost its plugin.

use host_fs::mount::testing::unmount;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use tonic::Code;

use super::{LONG, Pair, attach, detach, stage, wait_until_staging};
use crate::node::assert_refused;
use crate::support::csi::Usage;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

/// A caller that does not wait for long.
pub(super) const SHORT: Duration = Duration::from_secs(8);

impl Pair {
    /// Stages a volume on the first node, which attaches it for itself, and plans the same for the second one.
    async fn driven(&self, name: &str) -> (Usage, Usage) {
        let volume = self.one.csi.create(name).await;
        let here = self.first.usage(name, volume, &HashMap::new());
        stage(&self.one.csi, &here, LONG).await.unwrap();
        fs::write(here.alias().join("file"), "precious").unwrap();
        (here, self.second.usage(name, volume, &HashMap::new()))
    }

    fn assert_nothing_of_the_second(&self) {
        assert!(self.second.records().is_empty() && self.second.devices().is_empty());
        assert_eq!(Mounts::read().below(&self.second.path("")), []);
    }
}

pub(super) fn read_back(usage: &Usage) -> String {
    fs::read_to_string(usage.alias().join("file")).unwrap()
}

#[test]
fn a_task_that_is_restarted_elsewhere_gets_its_volume_when_its_predecessor_is_cleaned_up() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (here, there) = pair.driven("data").await;
        let (csi, usage) = (pair.two.csi.clone(), there.clone());
        let staging = tokio::spawn(async move { stage(&csi, &usage, LONG).await });
        let words = format!("\"lease of node {}\"", pair.first.node());
        wait_until_staging(&pair.two.csi, &there, &words).await;
        assert_eq!(read_back(&here), "precious", "the first node keeps it until then");
        pair.one.csi.unstage(&here).await.unwrap();
        staging.await.unwrap().unwrap();
        assert_eq!(read_back(&there), "precious");
        assert_eq!(
            pair.flocker.leaseholder(there.dataset()).await,
            Some(pair.second.node())
        );
    });
}

#[test]
fn a_volume_not_released_in_time_is_refused_and_nothing_of_the_attempt_is_left() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (here, there) = pair.driven("data").await;
        let first = pair.first.node();
        for _ in 0..2 {
            assert_refused(
                stage(&pair.two.csi, &there, SHORT).await,
                Code::FailedPrecondition,
                &[
                    &there.volume_id,
                    &format!("attached to node {first}"),
                    "flocker-csi leases release",
                ],
            );
            pair.assert_nothing_of_the_second();
        }
        assert_eq!(pair.flocker.leaseholder(here.dataset()).await, Some(first));
        assert_eq!(read_back(&here), "precious");
    });
}

#[test]
fn a_lease_is_not_waited_for_longer_than_the_caller_does() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (here, there) = pair.driven("data").await;
        let (csi, usage) = (pair.two.csi.clone(), there.clone());
        let staging = tokio::spawn(async move { stage(&csi, &usage, SHORT).await });
        wait_until_staging(&pair.two.csi, &there, "lease of node").await;
        staging.abort();
        eventually("the staging is abandoned", async || {
            pair.second.records().is_empty().then_some(())
        })
        .await;
        pair.one.csi.unstage(&here).await.unwrap();
        assert_eq!(pair.flocker.leaseholder(here.dataset()).await, None);
        pair.assert_nothing_of_the_second();
    });
}

#[test]
fn unstaging_ends_a_staging_that_waits_for_a_lease() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (here, there) = pair.driven("data").await;
        let (csi, usage) = (pair.two.csi.clone(), there.clone());
        let staging = tokio::spawn(async move { stage(&csi, &usage, LONG).await });
        wait_until_staging(&pair.two.csi, &there, "lease of node").await;
        pair.two.csi.unstage(&there).await.unwrap();
        assert_refused(staging.await.unwrap(), Code::Cancelled, &[&there.volume_id]);
        pair.assert_nothing_of_the_second();
        assert_eq!(
            pair.flocker.leaseholder(here.dataset()).await,
            Some(pair.first.node())
        );
    });
}

#[test]
fn a_volume_that_a_controller_attached_is_waited_for_as_well() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let first = pair.first.node();
        let volume = pair.volume("data").await;
        attach(&pair.one.csi, volume, first, LONG).await.unwrap();
        let there = pair.second.usage("data", volume, &HashMap::new());
        let (csi, usage) = (pair.two.csi.clone(), there.clone());
        let staging = tokio::spawn(async move { stage(&csi, &usage, LONG).await });
        wait_until_staging(&pair.two.csi, &there, "lease of node").await;
        detach(&pair.one.csi, volume, &first.to_string()).await.unwrap();
        staging.await.unwrap().unwrap();
        only_mount_at(&there.alias());
    });
}

#[test]
fn the_controllers_lease_outlives_unstaging_and_serves_the_next_staging() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (csi, first) = (&pair.one.csi, pair.first.node());
        let volume = pair.volume("data").await;
        let context = attach(csi, volume, first, LONG).await.unwrap();
        let attached = pair.first.usage("data", volume, &context);
        for _ in 0..3 {
            stage(csi, &attached, LONG).await.unwrap();
            csi.unstage(&attached).await.unwrap();
            assert_eq!(pair.flocker.leaseholder(volume).await, Some(first));
        }
        // An orchestrator without a controller finds the lease and uses it; from then on that staging owns it.
        let bare = pair.first.usage("data", volume, &HashMap::new());
        stage(csi, &bare, LONG).await.unwrap();
        only_mount_at(&bare.alias());
        csi.unstage(&bare).await.unwrap();
        eventually("the lease is released with the staging", async || {
            pair.flocker.leaseholder(volume).await.is_none().then_some(())
        })
        .await;
    });
}

#[test]
fn a_task_of_a_node_that_reboots_gets_its_volume_elsewhere_once_that_node_is_back() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let (first, second) = (Machine::new(&flocker, 1), Machine::new(&flocker, 2));
        let (one, two) = (first.process(&[]).await, second.plugin().await);
        let volume = one.csi.create("data").await;
        let here = first.usage("data", volume, &HashMap::new());
        stage(&one.csi, &here, LONG).await.unwrap();
        one.csi.publish(&here).await.unwrap();
        fs::write(here.target.join("file"), "precious").unwrap();
        // The reboot: no process and no mount remains, and no caller unstages afterwards.
        one.kill().await;
        for mounted in [&here.target, &here.alias()] {
            unmount(mounted);
        }
        fs::remove_dir_all(&first.config.plugin.device_dir).unwrap();
        first.age_records();
        flocker
            .embedded()
            .faults()
            .change(|plan| plan.nodes.entry(1).or_default().reboots += 1);

        let there = second.usage("data", volume, &HashMap::new());
        assert_refused(
            stage(&two.csi, &there, SHORT).await,
            Code::FailedPrecondition,
            &[&first.node().to_string()],
        );
        let (csi, usage) = (two.csi.clone(), there.clone());
        let staging = tokio::spawn(async move { stage(&csi, &usage, LONG).await });
        wait_until_staging(&two.csi, &there, "lease of node").await;
        let one = first.process(&[]).await;
        staging.await.unwrap().unwrap();
        assert_eq!(read_back(&there), "precious");
        assert!(first.records().is_empty());
        one.kill().await;
    });
}

#[test]
fn a_volume_whose_plugin_died_is_mounted_elsewhere_only_after_its_last_unmount() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let (first, second) = (Machine::new(&flocker, 1), Machine::new(&flocker, 2));
        let (one, two) = (first.process(&[]).await, second.plugin().await);
        let volume = one.csi.create("data").await;
        let context = one.csi.attach(volume, first.node()).await;
        let here = first.usage("data", volume, &context);
        one.csi.stage(&here).await.unwrap();
        one.csi.publish(&here).await.unwrap();
        let mut task = File::create(here.target.join("file")).unwrap();
        // The pin ends with the plugin, and the orchestrator considers the node dead.
        one.kill().await;
        detach(&two.csi, volume, &first.node().to_string()).await.unwrap();
        let context = attach(&two.csi, volume, second.node(), LONG).await.unwrap();
        let there = second.usage("data", volume, &context);
        eventually("the first node's agent has unmounted", async || {
            let mounts = Mounts::read().at(&flocker.mount_of(1, volume));
            mounts.is_empty().then_some(())
        })
        .await;
        let elsewhere = || !Mounts::read().below(&flocker.mount_of(2, volume)).is_empty();
        // The task continues to write, then ends; its mounts stay.
        for last in [false, true] {
            task.write_all(b"precious").unwrap();
            task.sync_all().unwrap();
            if last {
                task = File::open("/dev/null").unwrap();
            }
            assert_refused(
                stage(&two.csi, &there, SHORT).await,
                Code::DeadlineExceeded,
                &["\"mounted here\"", &volume.to_string()],
            );
            assert!(!elsewhere(), "mounted twice");
        }
        let one = first.process(&[]).await;
        one.csi.unpublish(&here).await.unwrap();
        assert!(!elsewhere(), "the staged mount is still there");
        one.csi.unstage(&here).await.unwrap();
        stage(&two.csi, &there, LONG).await.unwrap();
        assert_eq!(read_back(&there), "preciousprecious");
        assert!(Mounts::read().below(&first.path("")).is_empty());
        one.kill().await;
    });
}
