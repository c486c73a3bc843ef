//! Volumes that stay staged although their lease is no longer this node's.

use host_fs::mount::testing::unmount;
use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use flocker_csi::config::Mode;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use tonic::Code;

use super::{Fixture, agent_unmounts, assert_refused};
use crate::support::csi::{Usage, to_attach, within};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::{Machine, Running};
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

/// The shortest grace with which the leases are read often.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(3600);

async fn fixture(nodes: usize, grace: Duration) -> Fixture {
    let flocker = Flocker::start(nodes).await;
    let mut machine = Machine::new(&flocker, 1);
    machine.config.node.abandoned_grace = grace;
    Fixture::on(machine, flocker).await
}

/// A plugin of the second node.
async fn second_node(flocker: &Flocker) -> (Machine, Running) {
    let machine = Machine::new(flocker, 2);
    let plugin = machine.plugin().await;
    (machine, plugin)
}

async fn condition(fixture: &Fixture, usage: &Usage) -> Option<String> {
    let condition = fixture.csi().stats(usage).await.ok()?.volume_condition?;
    condition.abnormal.then_some(condition.message)
}

/// Waits until the leases have been read that many times.
async fn reads_of_leases(flocker: &Flocker, times: u64) {
    let read = || {
        flocker
            .embedded()
            .counters()
            .asked("GET", "/v1/configuration/leases")
    };
    let before = read();
    eventually("the leases are read", async || {
        (read() >= before + times).then_some(())
    })
    .await;
}

async fn wait_until_let_go(machine: &Machine, usage: &Usage) {
    eventually("the volume is let go", async || {
        (machine.records().is_empty() && machine.devices().is_empty()).then_some(())
    })
    .await;
    assert!(!usage.alias().exists(), "its directory is removed");
    assert_eq!(Mounts::read().below(&usage.staging), []);
}

#[test]
fn a_volume_that_is_never_unstaged_is_let_go_for_the_node_that_has_its_lease() {
    in_own_namespace(|| async {
        // As Swarm does it: unpublished and detached, and attached elsewhere, without NodeUnstageVolume.
        let fixture = fixture(2, LATE).await;
        let usage = fixture.published("data").await;
        fs::write(usage.target.join("file"), "precious").unwrap();
        fixture.csi().unpublish(&usage).await.unwrap();
        fixture
            .csi()
            .detach(usage.dataset(), fixture.machine.node())
            .await;

        let (second, plugin) = second_node(&fixture.flocker).await;
        let attached = plugin.csi.try_attach(to_attach(usage.dataset(), second.node()));
        // The next process of the first node reads the leases at once.
        let restarted = async {
            eventually("the lease is the second node's", async || {
                (fixture.flocker.leaseholder(usage.dataset()).await == Some(second.node())).then_some(())
            })
            .await;
            fixture.plugin.stop().await;
            fixture.machine.plugin().await
        };
        let (context, first) = futures::join!(attached, restarted);
        wait_until_let_go(&fixture.machine, &usage).await;
        let moved = second.usage("data", usage.dataset(), &context.unwrap());
        plugin.csi.stage(&moved).await.unwrap();
        plugin.csi.publish(&moved).await.unwrap();
        assert_eq!(fs::read_to_string(moved.target.join("file")).unwrap(), "precious");
        first.csi.unstage(&usage).await.unwrap();
        only_mount_at(&moved.alias());
        first.stop().await;
        plugin.stop().await;
    });
}

#[test]
fn leases_that_many_volumes_lose_at_once_are_read_together() {
    const VOLUMES: usize = 12;
    in_own_namespace(|| async {
        let fixture = fixture(1, LATE).await;
        let mut published = Vec::new();
        for number in 0..VOLUMES {
            published.push(fixture.published(&format!("data-{number}")).await);
        }
        fixture.plugin.stop().await;
        let client = fixture.flocker.client().await;
        for usage in &published {
            client.release_lease(usage.dataset()).await.unwrap();
        }
        let read = || {
            let counters = fixture.flocker.embedded().counters();
            counters.asked("GET", "/v1/configuration/leases")
        };
        let before = read();
        let plugin = fixture.machine.plugin().await;
        eventually("every volume is abnormal", async || {
            for usage in &published {
                let condition = plugin.csi.stats(usage).await.ok()?.volume_condition?;
                if !condition.abnormal {
                    return None;
                }
            }
            Some(())
        })
        .await;
        // One that finds what is lost, and one that confirms it; another one where that takes longer than a second.
        let reads = read() - before;
        assert!(reads < VOLUMES as u64 / 2, "{reads} reads");
        plugin.stop().await;
    });
}

#[test]
fn the_waiting_side_names_the_node_where_a_volume_is_still_staged() {
    in_own_namespace(|| async {
        let fixture = fixture(2, LATE).await;
        let usage = fixture.staged("data").await;
        fixture
            .csi()
            .detach(usage.dataset(), fixture.machine.node())
            .await;
        let (second, plugin) = second_node(&fixture.flocker).await;
        fixture.flocker.reports(1, usage.dataset()).await;
        // The first read after a move comes a moment later.
        let attach = within(SOON * 6, to_attach(usage.dataset(), second.node()));
        let node = fixture.machine.node().to_string();
        assert_refused(
            plugin.csi.try_attach(attach).await,
            Code::DeadlineExceeded,
            &[&node, "still staged there"],
        );
        plugin.stop().await;
    });
}

#[test]
fn a_volume_that_is_never_unstaged_is_let_go_after_the_grace_and_can_be_deleted() {
    in_own_namespace(|| async {
        for takes_lease in [false, true] {
            let fixture = fixture(1, SOON).await;
            let (csi, volume) = (fixture.csi(), fixture.csi().create("data").await);
            let context = if takes_lease {
                HashMap::new()
            } else {
                csi.attach(volume, fixture.machine.node()).await
            };
            let usage = fixture.machine.usage("data", volume, &context);
            csi.stage(&usage).await.unwrap();
            csi.publish(&usage).await.unwrap();
            csi.unpublish(&usage).await.unwrap();
            csi.detach(volume, fixture.machine.node()).await;
            wait_until_let_go(&fixture.machine, &usage).await;
            csi.unstage(&usage).await.unwrap();
            csi.unstage(&usage).await.unwrap();
            csi.delete(volume).await.unwrap();
            eventually("its data are destroyed", async || {
                fixture.flocker.backing_files().is_empty().then_some(())
            })
            .await;
        }
    });
}

#[test]
fn nothing_that_uses_a_volume_is_overlooked_before_it_is_let_go() {
    in_own_namespace(|| async {
        let fixture = fixture(1, SOON).await;
        let usage = fixture.staged("data").await;
        // Neither this process nor the mount table knows it as a publication.
        let other = fixture.machine.path("other");
        fs::create_dir(&other).unwrap();
        mount_bind(usage.alias(), &other).unwrap();
        mount_change(&other, MountPropagationFlags::PRIVATE).unwrap();
        fixture
            .csi()
            .detach(usage.dataset(), fixture.machine.node())
            .await;
        let staged = Usage {
            target: usage.alias(),
            ..usage.clone()
        };
        let why = eventually("it is abnormal", async || condition(&fixture, &staged).await).await;
        assert!(why.contains("no node holds the lease"), "{why}");
        reads_of_leases(&fixture.flocker, 3).await;
        only_mount_at(&usage.alias());
        unmount(&other);
        wait_until_let_go(&fixture.machine, &usage).await;
    });
}

#[test]
fn a_lease_that_another_client_released_under_a_task_is_acquired_again() {
    in_own_namespace(|| async {
        let fixture = fixture(1, SOON).await;
        let volume = fixture.csi().create("data").await;
        let usage = fixture.machine.usage("data", volume, &HashMap::new());
        fixture.csi().stage(&usage).await.unwrap();
        fixture.csi().publish(&usage).await.unwrap();
        let client = fixture.flocker.client().await;
        client.release_lease(volume).await.unwrap();
        let holder = eventually("it is leased again", async || {
            fixture.flocker.leaseholder(volume).await
        })
        .await;
        assert_eq!(holder, fixture.machine.node());
        assert_eq!(condition(&fixture, &usage).await, None);
        only_mount_at(&usage.target);
        fixture.csi().unpublish(&usage).await.unwrap();
        fixture.csi().unstage(&usage).await.unwrap();
        assert_eq!(fixture.flocker.leaseholder(volume).await, None);
    });
}

#[test]
fn a_lease_that_was_released_through_this_plugin_is_not_acquired_again_at_once() {
    in_own_namespace(|| async {
        let fixture = fixture(1, SOON).await;
        let volume = fixture.csi().create("data").await;
        let usage = fixture.machine.usage("data", volume, &HashMap::new());
        fixture.csi().stage(&usage).await.unwrap();
        fixture.csi().publish(&usage).await.unwrap();
        fixture.csi().detach(volume, fixture.machine.node()).await;
        reads_of_leases(&fixture.flocker, 3).await;
        assert_eq!(fixture.flocker.leaseholder(volume).await, None);
        let why = condition(&fixture, &usage).await.unwrap();
        assert!(why.contains("no node holds the lease"), "{why}");
    });
}

#[test]
fn a_volume_in_use_whose_controller_gave_its_lease_away_is_abnormal_and_stays_pinned() {
    in_own_namespace(|| async {
        let fixture = fixture(1, SOON).await;
        let (usage, node) = (fixture.published("data").await, fixture.machine.node());
        fixture.csi().detach(usage.dataset(), node).await;
        let why = eventually("it is abnormal", async || condition(&fixture, &usage).await).await;
        assert!(why.contains("no node holds the lease"), "{why}");
        reads_of_leases(&fixture.flocker, 3).await;
        assert_eq!(fixture.flocker.leaseholder(usage.dataset()).await, None);
        agent_unmounts(&fixture.flocker.mount_of(1, usage.dataset())).unwrap_err();
        only_mount_at(&usage.target);

        fixture.csi().attach(usage.dataset(), node).await;
        eventually("it is as it was", async || {
            condition(&fixture, &usage).await.is_none().then_some(())
        })
        .await;
        fixture.csi().unpublish(&usage).await.unwrap();
        fixture.csi().unstage(&usage).await.unwrap();
    });
}

#[test]
fn a_volume_in_use_under_the_lease_of_another_node_is_not_published_again_and_goes_with_its_last_use() {
    in_own_namespace(|| async {
        let fixture = fixture(2, SOON).await;
        let usage = fixture.published("data").await;
        let (second, plugin) = second_node(&fixture.flocker).await;
        fs::write(usage.target.join("file"), "precious").unwrap();
        // A forced detachment.
        fixture
            .csi()
            .detach(usage.dataset(), fixture.machine.node())
            .await;
        let other = second.node().to_string();
        let attach = tokio::spawn({
            let (csi, request) = (plugin.csi.clone(), to_attach(usage.dataset(), second.node()));
            async move { csi.try_attach(request).await }
        });
        let why = eventually("it is abnormal", async || {
            condition(&fixture, &usage)
                .await
                .filter(|why| why.contains(&other))
        })
        .await;
        assert!(why.contains("holds the lease"), "{why}");
        assert_refused(
            fixture.csi().publish(&usage.at_target("again")).await,
            Code::FailedPrecondition,
            &[&usage.volume_id, &other],
        );
        fixture.csi().publish(&usage).await.unwrap();
        only_mount_at(&usage.target);
        assert!(!attach.is_finished(), "the volume is pinned");

        fixture.csi().unpublish(&usage).await.unwrap();
        wait_until_let_go(&fixture.machine, &usage).await;
        let moved = second.usage("data", usage.dataset(), &attach.await.unwrap().unwrap());
        plugin.csi.stage(&moved).await.unwrap();
        assert_eq!(
            fs::read_to_string(moved.alias().join("file")).unwrap(),
            "precious"
        );
        plugin.csi.unstage(&moved).await.unwrap();
        plugin.stop().await;
    });
}

#[test]
fn a_lease_of_this_node_without_a_record_or_a_mount_is_reported_once_and_stays() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine
            .process(&["--takeover-grace=1s", "--abandoned-grace=1s"])
            .await;
        let (staged, lost) = (plugin.csi.create("staged").await, plugin.csi.create("lost").await);
        let context = plugin.csi.attach(staged, machine.node()).await;
        plugin.csi.attach(lost, machine.node()).await;
        let usage = machine.usage("staged", staged, &context);
        plugin.csi.stage(&usage).await.unwrap();
        let reports = || {
            let log = fs::read_to_string(machine.path("plugin.log")).unwrap();
            let lines = log
                .lines()
                .filter(|line| line.contains("neither a record nor a mount"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        eventually("it is reported", async || (!reports().is_empty()).then_some(())).await;
        reads_of_leases(&flocker, 3).await;
        let reports = reports();
        assert_eq!(reports.len(), 1, "{reports:?}");
        for part in [
            &lost.to_string(),
            "ControllerUnpublishVolume",
            "flocker-csi leases release",
        ] {
            assert!(reports[0].contains(part), "{reports:?}");
        }
        assert_eq!(flocker.leaseholder(lost).await, Some(machine.node()));
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.kill().await;
    });
}

#[test]
fn unstaging_releases_a_lease_whose_record_was_lost_only_where_no_controller_attaches() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        let plugin = machine.plugin().await;
        let volume = plugin.csi.create("data").await;
        plugin.csi.attach(volume, machine.node()).await;
        plugin.stop().await;
        let usage = machine.usage("data", volume, &HashMap::new());
        for (mode, only_nodes_attach, is_released) in [
            (Mode::Node, false, false),
            (Mode::All, true, false),
            (Mode::Node, true, true),
        ] {
            machine.config.mode = mode;
            machine.config.node.only_nodes_attach = only_nodes_attach;
            let plugin = machine.plugin().await;
            plugin.csi.unstage(&usage).await.unwrap();
            let holder = flocker.leaseholder(volume).await;
            assert_eq!(holder.is_none(), is_released, "{mode:?} {only_nodes_attach}");
            plugin.csi.unstage(&usage).await.unwrap();
            plugin.stop().await;
        }
    });
}
