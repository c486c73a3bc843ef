//! Volumes that only the node attaches, and an unreachable Flocker.

use host_fs::mount::testing::unmount;
use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use uuid::Uuid;

use super::Fixture;
use crate::support::csi::{Usage, within};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;
use crate::support::tcp_proxy::TcpProxy;

/// A Flocker behind a proxy, and a node that reaches it through that.
struct Proxied {
    flocker: Flocker,
    proxy: TcpProxy,
    machine: Machine,
}

impl Proxied {
    async fn start() -> Self {
        let flocker = Flocker::start(1).await;
        let proxy = TcpProxy::to(flocker.embedded().address()).await;
        let machine = Machine::through(proxy.address(), &flocker, 1);
        Self {
            flocker,
            proxy,
            machine,
        }
    }

    async fn is_leased(&self, usage: &Usage) -> bool {
        let holder = self.flocker.leaseholder(usage.dataset()).await;
        assert!(holder.is_none_or(|holder| holder == self.machine.node()));
        holder.is_some()
    }

    async fn lease_goes(&self, usage: &Usage) {
        eventually("the lease is released", async || {
            (!self.is_leased(usage).await).then_some(())
        })
        .await;
        eventually("the record is removed with it", async || {
            self.machine.records().is_empty().then_some(())
        })
        .await;
    }

    fn usage(&self, name: &str, volume: Uuid) -> Usage {
        self.machine.usage(name, volume, &HashMap::new())
    }
}

#[test]
fn an_unattached_volume_is_moved_leased_and_released_by_the_node() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let (csi, node) = (fixture.csi(), fixture.machine.node());
        // It is on the other node at first.
        let volume = csi.create("data").await;
        csi.attach(volume, fixture.flocker.node(2)).await;
        csi.detach(volume, fixture.flocker.node(2)).await;
        fixture.flocker.reports(2, volume).await;

        let usage = fixture.machine.usage("data", volume, &HashMap::new());
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();
        assert_eq!(fixture.flocker.leaseholder(volume).await, Some(node));
        fixture.flocker.reports(1, volume).await;
        let usage = usage.read_only();
        csi.unpublish(&usage).await.unwrap();
        assert_eq!(fixture.flocker.leaseholder(volume).await, Some(node));
        csi.unstage(&usage).await.unwrap();
        assert_eq!(fixture.flocker.leaseholder(volume).await, None);
        assert!(fixture.machine.records().is_empty());
        csi.delete(volume).await.unwrap();
    });
}

#[test]
fn the_lease_is_released_with_the_last_staging_path_only() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, volume) = (fixture.csi(), fixture.csi().create("data").await);
        let one = fixture.machine.usage("one", volume, &HashMap::new());
        let two = fixture.machine.usage("two", volume, &HashMap::new());
        csi.stage(&one).await.unwrap();
        csi.stage(&two).await.unwrap();
        csi.unstage(&one).await.unwrap();
        assert!(fixture.flocker.leaseholder(volume).await.is_some());
        csi.unstage(&two).await.unwrap();
        assert!(fixture.flocker.leaseholder(volume).await.is_none());
    });
}

#[test]
fn a_staged_volume_needs_no_flocker() {
    in_own_namespace(|| async {
        let proxied = Proxied::start().await;
        let plugin = proxied.machine.plugin().await;
        let csi = &plugin.csi;
        let usage = proxied.usage("data", csi.create("data").await);
        csi.stage(&usage).await.unwrap();
        proxied.proxy.close();
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();
        fs::write(usage.target.join("file"), "precious").unwrap();
        assert!(
            !csi.stats(&usage)
                .await
                .unwrap()
                .volume_condition
                .unwrap()
                .abnormal
        );
        csi.unpublish(&usage).await.unwrap();
        csi.unstage(&usage).await.unwrap();
        assert!(proxied.is_leased(&usage).await);
        assert!(!usage.alias().exists());

        proxied.proxy.open();
        proxied.lease_goes(&usage).await;
        plugin.stop().await;
    });
}

#[test]
fn a_staged_volume_needs_no_flocker_to_name_the_node() {
    in_own_namespace(|| async {
        let mut proxied = Proxied::start().await;
        // Flocker names the node, by the boot id of the machine.
        proxied.machine.config.node.node_id = None;
        let plugin = proxied.machine.plugin().await;
        let usage = proxied.usage("data", plugin.csi.create("data").await);
        plugin.csi.stage(&usage).await.unwrap();
        plugin.stop().await;
        fs::remove_file(proxied.machine.config.node.state_dir.join("node.json")).unwrap();
        proxied.proxy.close();

        let plugin = proxied.machine.plugin().await;
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        proxied.proxy.open();
        plugin.stop().await;
    });
}

#[test]
fn unstaging_does_not_wait_for_a_flocker_that_does_not_answer() {
    in_own_namespace(|| async {
        let proxied = Proxied::start().await;
        let plugin = proxied.machine.plugin().await;
        let csi = &plugin.csi;
        let usage = proxied.usage("data", csi.create("data").await);
        csi.stage(&usage).await.unwrap();
        proxied.proxy.stall();
        let request = within(Duration::from_secs(20), usage.to_unstage());
        csi.node().node_unstage_volume(request).await.unwrap();
        assert!(proxied.is_leased(&usage).await);
        assert!(!usage.alias().exists());

        proxied.proxy.open();
        proxied.lease_goes(&usage).await;
        plugin.stop().await;
    });
}

#[test]
fn a_lease_that_could_not_be_released_is_released_by_the_next_plugin() {
    in_own_namespace(|| async {
        let proxied = Proxied::start().await;
        let plugin = proxied.machine.process(&[]).await;
        let usage = proxied.usage("data", plugin.csi.create("data").await);
        plugin.csi.stage(&usage).await.unwrap();
        proxied.proxy.close();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.kill().await;
        assert!(proxied.is_leased(&usage).await);

        let plugin = proxied.machine.process(&[]).await;
        assert!(proxied.is_leased(&usage).await);
        proxied.proxy.open();
        proxied.lease_goes(&usage).await;
        plugin.kill().await;
    });
}

#[test]
fn a_new_staging_takes_over_the_lease_that_was_to_be_released() {
    in_own_namespace(|| async {
        let proxied = Proxied::start().await;
        let plugin = proxied.machine.plugin().await;
        let csi = &plugin.csi;
        let kept = proxied.usage("kept", csi.create("kept").await);
        let given = proxied.usage("given", csi.create("given").await);
        let (attached, node) = (csi.create("attached").await, proxied.machine.node());
        let context = csi.attach(attached, node).await;
        let attached = proxied.usage("attached", attached);
        for usage in [&kept, &attached, &given] {
            csi.stage(usage).await.unwrap();
        }
        proxied.proxy.close();
        for usage in [&kept, &attached, &given] {
            csi.unstage(usage).await.unwrap();
        }
        proxied.proxy.open();
        csi.stage(&kept).await.unwrap();
        let attached = Usage {
            publish_context: context,
            ..attached
        };
        csi.attach(attached.dataset(), node).await;
        csi.stage(&attached).await.unwrap();

        eventually("the lease that no node took over is released", async || {
            (!proxied.is_leased(&given).await).then_some(())
        })
        .await;
        for usage in [&kept, &attached] {
            assert!(proxied.is_leased(usage).await);
            csi.publish(usage).await.unwrap();
            csi.unpublish(usage).await.unwrap();
            csi.unstage(usage).await.unwrap();
        }
        assert!(!proxied.is_leased(&kept).await);
        assert!(
            proxied.is_leased(&attached).await,
            "that lease is the controller's"
        );
        plugin.stop().await;
    });
}

#[test]
fn a_volume_staged_before_a_reboot_is_not_staged_and_its_lease_is_released() {
    in_own_namespace(|| async {
        let proxied = Proxied::start().await;
        let plugin = proxied.machine.process(&[]).await;
        let csi = &plugin.csi;
        let node = proxied.machine.node();
        let driven = proxied.usage("driven", csi.create("driven").await);
        let volume = csi.create("attached").await;
        let context = csi.attach(volume, node).await;
        let attached = proxied.machine.usage("attached", volume, &context);
        for usage in [&driven, &attached] {
            csi.stage(usage).await.unwrap();
        }
        plugin.kill().await;
        for usage in [&driven, &attached] {
            unmount(usage.alias());
        }
        proxied.machine.age_records();
        fs::remove_dir_all(&proxied.machine.config.plugin.device_dir).unwrap();

        let plugin = proxied.machine.process(&[]).await;
        proxied.lease_goes(&driven).await;
        assert!(
            proxied.is_leased(&attached).await,
            "that lease is the controller's"
        );
        for usage in [&driven, &attached] {
            plugin.csi.unstage(usage).await.unwrap();
            plugin.csi.stage(usage).await.unwrap();
            only_mount_at(&usage.alias());
            plugin.csi.unstage(usage).await.unwrap();
        }
        assert_eq!(Mounts::read().below(&proxied.machine.path("")), []);
        plugin.kill().await;
    });
}

#[test]
fn a_plugin_that_starts_without_flocker_pins_what_is_staged() {
    in_own_namespace(|| async {
        let proxied = Proxied::start().await;
        let plugin = proxied.machine.process(&[]).await;
        let usage = proxied.usage("data", plugin.csi.create("data").await);
        plugin.csi.stage(&usage).await.unwrap();
        plugin.kill().await;
        proxied.proxy.close();

        let plugin = proxied.machine.process(&[]).await;
        let flockers = proxied.flocker.mount_of(1, usage.dataset());
        let agent = Command::new("umount").arg(&flockers).output().unwrap();
        assert!(!agent.status.success(), "it is pinned");
        plugin.csi.publish(&usage).await.unwrap();
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        proxied.proxy.open();
        proxied.lease_goes(&usage).await;
        plugin.kill().await;
    });
}

#[test]
fn a_release_that_is_due_leaves_the_lease_of_a_staging_elsewhere_alone() {
    in_own_namespace(|| async {
        let proxied = Proxied::start().await;
        let plugin = proxied.machine.plugin().await;
        let csi = &plugin.csi;
        let first = proxied.usage("first", csi.create("data").await);
        csi.stage(&first).await.unwrap();
        proxied.proxy.close();
        csi.unstage(&first).await.unwrap();
        proxied.proxy.open();
        let second = proxied.usage("second", first.dataset());
        csi.stage(&second).await.unwrap();
        eventually("the release finds that it is not due any more", async || {
            (proxied.machine.records().len() == 1).then_some(())
        })
        .await;
        assert!(proxied.is_leased(&second).await);
        csi.unstage(&second).await.unwrap();
        assert!(!proxied.is_leased(&second).await);
        plugin.stop().await;
    });
}
