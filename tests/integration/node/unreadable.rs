//! Staging records that are damaged or of a newer release: they are kept and named, and release nothing.

use std::collections::HashMap;
use std::fs;

use tonic::Code;

use super::{assert_refused, wait_until_agent_unmounts};
use crate::support::csi::Usage;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::Mounts;
use crate::support::namespace::in_own_namespace;

const NEWER: &str = "{\"version\": 99, \"record\": {\"more\": true}}";

/// Makes the one record of a machine unreadable, and returns its content.
fn spoil(machine: &Machine, content: &str) -> String {
    let records = machine.records();
    assert_eq!(records.len(), 1, "{records:?}");
    let earlier = fs::read_to_string(&records[0]).unwrap();
    fs::write(&records[0], content).unwrap();
    earlier
}

async fn staged(machine: &Machine) -> Usage {
    let plugin = machine.process(&[]).await;
    let volume = plugin.csi.create("data").await;
    let usage = machine.usage("data", volume, &HashMap::new());
    plugin.csi.stage(&usage).await.unwrap();
    plugin.kill().await;
    usage
}

#[test]
fn unstaging_with_an_unreadable_record_gives_back_all_but_the_lease_and_names_the_record() {
    for content in ["", "{\"version\": 2, \"rec", NEWER] {
        in_own_namespace(move || async move {
            let flocker = Flocker::start(1).await;
            let machine = Machine::new(&flocker, 1);
            let usage = staged(&machine).await;
            spoil(&machine, content);
            let record = machine.records().remove(0);

            let plugin = machine.process(&[]).await;
            let request = format!("flocker-csi leases release {} --node", usage.volume_id);
            let parts = [record.to_str().unwrap(), &request, &usage.volume_id];
            assert_refused(plugin.csi.unstage(&usage).await, Code::Unavailable, &parts);
            assert_eq!(Mounts::read().at(&usage.alias()), []);
            assert!(!usage.alias().exists() && machine.devices().is_empty());
            wait_until_agent_unmounts(&flocker.mount_of(1, usage.dataset())).await;
            // What it says is not known, so its lease stays.
            assert_eq!(
                flocker.leaseholder(usage.dataset()).await,
                Some(machine.node()),
                "{content:?}"
            );
            // The orchestrator is not held up, in this process or in the next.
            plugin.csi.unstage(&usage).await.unwrap();
            plugin.kill().await;
            let kept = machine.records();
            assert_eq!(kept.len(), 1, "{kept:?}");
            assert_eq!(fs::read_to_string(&kept[0]).unwrap(), content);
            let log = fs::read_to_string(machine.path("plugin.log")).unwrap();
            assert!(log.contains(&request), "{log}");

            let plugin = machine.process(&[]).await;
            plugin.csi.unstage(&usage).await.unwrap();
            assert_eq!(machine.records(), kept);
            plugin.kill().await;
            let log = fs::read_to_string(machine.path("plugin.log")).unwrap();
            let name = kept[0].file_name().unwrap().to_str().unwrap();
            assert!(log.contains(name), "every start names it: {log}");
        });
    }
}

#[test]
fn a_volume_is_staged_again_over_an_unreadable_record_which_is_kept() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let usage = staged(&machine).await;
        spoil(&machine, NEWER);
        let plugin = machine.process(&[]).await;
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.kill().await;
        let log = fs::read_to_string(machine.path("plugin.log")).unwrap();
        let plugin = machine.process(&[]).await;
        plugin.csi.unstage(&usage).await.ok();
        plugin.csi.unstage(&usage).await.unwrap();
        let kept = machine.records();
        assert_eq!(kept.len(), 1, "{kept:?} {log}");
        assert_eq!(fs::read_to_string(&kept[0]).unwrap(), NEWER);
        plugin.kill().await;
    });
}

#[test]
fn an_unreadable_record_closes_no_other_volume() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let usage = staged(&machine).await;
        spoil(&machine, "damaged");
        let plugin = machine.process(&[]).await;
        let other = plugin.csi.create("other").await;
        let other = machine.usage("other", other, &HashMap::new());
        plugin.csi.stage(&other).await.unwrap();
        plugin.csi.publish(&other).await.unwrap();
        plugin.csi.unpublish(&other).await.unwrap();
        plugin.csi.unstage(&other).await.unwrap();
        assert_eq!(flocker.leaseholder(other.dataset()).await, None);
        assert_eq!(flocker.leaseholder(usage.dataset()).await, Some(machine.node()));
        plugin.kill().await;
    });
}
