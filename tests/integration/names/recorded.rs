//! Names of volumes that are, or were, staged, from the records of a node.

use host_fs::mount::testing::unmount;
use std::collections::HashMap;
use std::fs;

use flocker_embedded::faults::{Effect, RequestFault};
use tonic::Code;
use uuid::Uuid;

use super::{begin, by_name, declare, end};
use crate::node::{Fixture, assert_refused};
use crate::support::csi::Usage;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

const LEASE: &str = "/v1/configuration/leases/{dataset_id}";

/// The same name, as another task uses it on this node.
fn elsewhere(machine: &Machine, usage: &Usage, place: &str) -> Usage {
    Usage {
        volume_id: usage.volume_id.clone(),
        volume_context: usage.volume_context.clone(),
        ..machine.usage(place, Uuid::nil(), &HashMap::new())
    }
}

/// A dataset whose `name` is "web", and a later one whose `FLOCKER_ID` is "web", which takes precedence from then on.
async fn renamed(flocker: &Flocker) -> Uuid {
    declare(flocker, 1, &[("FLOCKER_ID", "web")]).await
}

#[test]
fn two_datasets_that_had_one_name_in_turn_are_distinguished_by_their_mounts() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        declare(&fixture.flocker, 1, &[("name", "web")]).await;
        let before = by_name(&fixture.machine, "web", &[]);
        begin(fixture.csi(), &before).await.unwrap();
        renamed(&fixture.flocker).await;
        let after = elsewhere(&fixture.machine, &before, "after");
        begin(fixture.csi(), &after).await.unwrap();
        let (old, new) = (only_mount_at(&before.target), only_mount_at(&after.target));
        assert_ne!(old.device, new.device);
        // The first volume still has the name that it had when it was staged.
        fixture.csi().stage(&before).await.unwrap();
        fixture.csi().publish(&before).await.unwrap();
        for usage in [&before, &after] {
            let stats = fixture.csi().stats(usage).await.unwrap();
            assert!(!stats.volume_condition.unwrap().abnormal);
        }
        for usage in [&before, &after] {
            end(fixture.csi(), usage).await;
        }
        assert!(fixture.machine.records().is_empty() && fixture.machine.devices().is_empty());
    });
}

#[test]
fn a_name_is_given_back_by_a_plugin_that_lost_its_records() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let dataset = declare(&flocker, 1, &[("FLOCKER_ID", "web")]).await;
        let usage = by_name(&machine, "web", &[]);
        begin(&plugin.csi, &usage).await.unwrap();
        plugin.kill().await;
        fs::remove_dir_all(&machine.config.node.state_dir).unwrap();

        let plugin = machine.process(&[]).await;
        // Staging finds existing mounts again; without it, the names of the mounts' sources identify them.
        begin(&plugin.csi, &usage).await.unwrap();
        only_mount_at(&usage.staging.join(dataset.to_string()));
        plugin.kill().await;
        fs::remove_dir_all(&machine.config.node.state_dir).unwrap();

        let plugin = machine.process(&[]).await;
        assert!(!plugin.csi.stats(&usage).await.unwrap().usage.is_empty());
        end(&plugin.csi, &usage).await;
        assert_eq!(Mounts::read().below(&machine.path("")), []);
        plugin.kill().await;
    });
}

#[test]
fn a_volume_that_is_staged_under_its_id_can_be_used_by_its_name_too() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let dataset = declare(&fixture.flocker, 1, &[("FLOCKER_ID", "web")]).await;
        let named = by_name(&fixture.machine, "web", &[]);
        let by_id = Usage {
            volume_id: dataset.to_string(),
            target: named.target.with_file_name("by-id"),
            ..named.clone()
        };
        begin(fixture.csi(), &by_id).await.unwrap();
        begin(fixture.csi(), &named).await.unwrap();
        assert_eq!(
            only_mount_at(&by_id.target).device,
            only_mount_at(&named.target).device
        );
        fixture.csi().unpublish(&by_id).await.unwrap();
        end(fixture.csi(), &named).await;
        fixture.csi().unstage(&by_id).await.unwrap();
        assert_eq!(fixture.flocker.leaseholder(dataset).await, None);
        assert!(fixture.machine.records().is_empty());
    });
}

#[test]
fn a_name_that_changed_while_the_old_lease_was_to_be_released_leaves_no_lease() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let old = declare(&fixture.flocker, 1, &[("name", "web")]).await;
        let usage = by_name(&fixture.machine, "web", &[]);
        let broken = Effect::Answer {
            status: 500,
            body: "\"broken\"".to_owned(),
        };
        let faults = fixture.flocker.embedded().faults();
        faults.add(RequestFault::new("failing", broken).on("DELETE", LEASE));
        begin(fixture.csi(), &usage).await.unwrap();
        end(fixture.csi(), &usage).await;
        assert_eq!(
            fixture.machine.records().len(),
            1,
            "the release is still to be made"
        );

        let new = renamed(&fixture.flocker).await;
        assert_refused(
            fixture.csi().publish(&usage).await,
            Code::FailedPrecondition,
            &["web", "NodeStageVolume"],
        );
        begin(fixture.csi(), &usage).await.unwrap();
        only_mount_at(&usage.staging.join(new.to_string()));
        end(fixture.csi(), &usage).await;
        end(fixture.csi(), &usage).await;
        faults.clear();
        for dataset in [old, new] {
            eventually("the lease is released", async || {
                fixture.flocker.leaseholder(dataset).await.is_none().then_some(())
            })
            .await;
        }
        eventually("nothing is left to be released", async || {
            fixture.machine.records().is_empty().then_some(())
        })
        .await;
    });
}

#[test]
fn a_name_after_a_reboot_means_what_flocker_says_by_then() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let old = declare(&flocker, 1, &[("name", "web")]).await;
        let usage = by_name(&machine, "web", &[]);
        begin(&plugin.csi, &usage).await.unwrap();
        plugin.kill().await;
        for mounted in [usage.target.clone(), usage.staging.join(old.to_string())] {
            unmount(mounted);
        }
        machine.age_records();
        fs::remove_dir_all(&machine.config.plugin.device_dir).unwrap();
        let new = renamed(&flocker).await;

        let plugin = machine.process(&[]).await;
        assert_refused(plugin.csi.stats(&usage).await, Code::NotFound, &["web"]);
        begin(&plugin.csi, &usage).await.unwrap();
        only_mount_at(&usage.staging.join(new.to_string()));
        end(&plugin.csi, &usage).await;
        for dataset in [old, new] {
            eventually("the lease is released", async || {
                flocker.leaseholder(dataset).await.is_none().then_some(())
            })
            .await;
        }
        plugin.kill().await;
    });
}

#[test]
fn a_name_may_be_written_in_any_characters_and_is_answered_in_every_state() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let long = "x".repeat(256);
        let names = ["../../etc", "a\nb\u{7f}\0", "größe/日本", " ", long.as_str()];
        for (number, name) in names.into_iter().enumerate() {
            let usage = Usage {
                volume_id: name.to_owned(),
                ..by_name(&fixture.machine, &format!("odd-{number}"), &[])
            };
            let csi = fixture.csi();
            assert_refused(csi.stage(&usage).await, Code::NotFound, &["does not exist"]);
            assert_refused(csi.stats(&usage).await, Code::NotFound, &["is not mounted"]);
            assert_refused(
                csi.publish(&usage).await,
                Code::FailedPrecondition,
                &["NodeStageVolume"],
            );
            end(csi, &usage).await;

            declare(&fixture.flocker, 1, &[("FLOCKER_ID", name)]).await;
            begin(csi, &usage).await.unwrap();
            assert_refused(
                csi.unstage(&usage).await,
                Code::FailedPrecondition,
                &["NodeUnpublish"],
            );
            end(csi, &usage).await;
        }
        let endless = Usage {
            volume_id: "ü\n".repeat(20_000),
            ..by_name(&fixture.machine, "endless", &[])
        };
        let (code, parts) = (Code::InvalidArgument, ["volume_id", "at most 4095 bytes"]);
        assert_refused(fixture.csi().stage(&endless).await, code, &parts);
        assert_refused(fixture.csi().publish(&endless).await, code, &parts);
        assert_eq!(Mounts::read().below(&fixture.machine.path("")), []);
        assert!(fixture.machine.records().is_empty());
    });
}
