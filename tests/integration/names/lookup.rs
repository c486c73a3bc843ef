//! Names of existing datasets.

use std::collections::HashMap;
use std::fs;

use tonic::Code;

use super::{begin, by_name, declare, end, live};
use crate::node::{Fixture, assert_refused};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;
use crate::support::tcp_proxy::TcpProxy;

#[test]
fn a_task_that_used_a_flocker_id_gets_its_data_back_on_any_node() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        // All keys that the old isolator stored; the dataset is on the other node.
        let dataset = declare(&fixture.flocker, 2, &[("FLOCKER_ID", "web")]).await;
        fixture.flocker.reports(2, dataset).await;
        let old = fixture.flocker.mount_of(2, dataset);
        fs::write(old.join("precious"), "written by the old task").unwrap();

        let usage = by_name(&fixture.machine, "web", &[]);
        begin(fixture.csi(), &usage).await.unwrap();
        let read = fs::read_to_string(usage.target.join("precious")).unwrap();
        assert_eq!(read, "written by the old task");
        assert_eq!(
            fixture.flocker.leaseholder(dataset).await,
            Some(fixture.machine.node())
        );
        let stats = fixture.csi().stats(&usage).await.unwrap();
        assert!(!stats.volume_condition.unwrap().abnormal);
        end(fixture.csi(), &usage).await;
        assert_eq!(fixture.flocker.leaseholder(dataset).await, None);
        assert!(fixture.machine.records().is_empty());
        assert_eq!(live(&fixture.flocker).await.len(), 1);
    });
}

#[test]
fn a_volume_of_csi_or_docker_is_found_by_its_name() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let of_csi = fixture.csi().create("of-csi").await;
        let of_docker = declare(
            &fixture.flocker,
            1,
            &[("name", "of docker"), ("maximum_size", "67108864")],
        )
        .await;
        for (name, dataset) in [("of-csi", of_csi), ("of docker", of_docker)] {
            let usage = by_name(&fixture.machine, name, &[]);
            begin(fixture.csi(), &usage).await.unwrap();
            let alias = only_mount_at(&usage.staging.join(dataset.to_string()));
            assert_eq!(only_mount_at(&usage.target).device, alias.device);
            end(fixture.csi(), &usage).await;
        }
    });
}

#[test]
fn a_name_that_several_datasets_have_is_refused_with_their_ids() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let mut twins = Vec::new();
        for _ in 0..2 {
            twins.push(
                declare(&fixture.flocker, 1, &[("FLOCKER_ID", "web")])
                    .await
                    .to_string(),
            );
        }
        let usage = by_name(&fixture.machine, "web", &[]);
        let parts = [twins[0].as_str(), &twins[1], "\"web\"", "FLOCKER_ID"];
        assert_refused(
            fixture.csi().stage(&usage).await,
            Code::FailedPrecondition,
            &parts,
        );
        assert!(fixture.machine.records().is_empty());
        // An id selects one of the two.
        let one = fixture
            .machine
            .usage("one", twins[0].parse().unwrap(), &HashMap::new());
        begin(fixture.csi(), &one).await.unwrap();
        end(fixture.csi(), &one).await;
    });
}

#[test]
fn a_name_that_no_live_dataset_has_is_refused_also_when_a_deleted_one_had_it() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let deleted = declare(&fixture.flocker, 1, &[("FLOCKER_ID", "web"), ("name", "web")]).await;
        fixture.csi().delete(deleted).await.unwrap();
        let id = "0FBBD6E1-F558-4EA3-B2FE-B0268D12322A";
        let create = ("flocker.create", "true");
        for (name, context, part) in [
            ("web", &[][..], "check it for a typo"),
            ("web", &[create][..], "create_on_first_use"),
            (id, &[][..], &*id.to_lowercase()),
        ] {
            let usage = by_name(&fixture.machine, name, context);
            let parts = [name, "does not exist", part];
            assert_refused(fixture.csi().stage(&usage).await, Code::NotFound, &parts);
            assert!(fixture.machine.records().is_empty());
            // A volume that never existed counts as removed.
            end(fixture.csi(), &usage).await;
        }
        assert_eq!(live(&fixture.flocker).await, []);
    });
}

#[test]
fn a_name_is_staged_again_published_and_given_back_while_flocker_is_down() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let proxy = TcpProxy::to(flocker.embedded().address()).await;
        let machine = Machine::through(proxy.address(), &flocker, 1);
        let plugin = machine.process(&[]).await;
        let dataset = declare(&flocker, 1, &[("FLOCKER_ID", "web")]).await;
        let usage = by_name(&machine, "web", &[]);
        begin(&plugin.csi, &usage).await.unwrap();
        fs::write(usage.target.join("precious"), "data").unwrap();

        proxy.close();
        begin(&plugin.csi, &usage).await.unwrap();
        plugin.kill().await;
        // The next process knows the name from the record.
        let plugin = machine.process(&[]).await;
        begin(&plugin.csi, &usage).await.unwrap();
        only_mount_at(&usage.target);
        assert_eq!(fs::read_to_string(usage.target.join("precious")).unwrap(), "data");
        end(&plugin.csi, &usage).await;
        end(&plugin.csi, &usage).await;
        assert_eq!(flocker.leaseholder(dataset).await, Some(machine.node()));
        proxy.open();
        eventually("the lease is released", async || {
            flocker.leaseholder(dataset).await.is_none().then_some(())
        })
        .await;
    });
}

#[test]
fn a_name_that_got_a_new_dataset_means_that_one() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let usage = by_name(&fixture.machine, "web", &[]);
        let first = declare(&fixture.flocker, 1, &[("FLOCKER_ID", "web")]).await;
        begin(fixture.csi(), &usage).await.unwrap();
        end(fixture.csi(), &usage).await;
        fixture.csi().delete(first).await.unwrap();
        let second = declare(&fixture.flocker, 1, &[("FLOCKER_ID", "web")]).await;
        begin(fixture.csi(), &usage).await.unwrap();
        only_mount_at(&usage.staging.join(second.to_string()));
        end(fixture.csi(), &usage).await;
    });
}
