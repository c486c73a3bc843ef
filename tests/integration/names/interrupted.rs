//! First uses that are interrupted.

use flocker_embedded::faults::{Effect, RequestFault};
use tonic::Code;

use super::first_use::pool;
use super::{DATASETS, begin, by_name, end, live, making};
use crate::node::{Fixture, assert_refused};
use crate::support::csi::Usage;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

const CREATE: (&str, &str) = ("flocker.create", "true");

/// A rule that keeps the first dataset from being created until it is removed.
fn held() -> RequestFault {
    RequestFault::new("held", Effect::HoldRequest)
        .on("POST", DATASETS)
        .once()
}

#[test]
fn two_first_uses_of_one_name_on_one_node_take_the_room_of_one_volume() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        machine.config.plugin.create_on_first_use = true;
        machine.config.pools = vec![pool("gold", 100)];
        let fixture = Fixture::on(machine, flocker).await;
        let faults = fixture.flocker.embedded().faults();
        let context = [CREATE, ("flocker.profile", "gold")];
        let one = by_name(&fixture.machine, "web", &context);
        let other = Usage {
            volume_id: one.volume_id.clone(),
            ..by_name(&fixture.machine, "other", &context)
        };
        faults.add(held());
        let (csi, usage) = (fixture.csi().clone(), one.clone());
        let first = tokio::spawn(async move { begin(&csi, &usage).await });
        faults.until_met("held", 1).await;
        begin(fixture.csi(), &other).await.unwrap();
        faults.remove("held");
        first.await.unwrap().unwrap();
        for usage in [&one, &other] {
            end(fixture.csi(), usage).await;
        }
        assert_eq!(live(&fixture.flocker).await.len(), 1);
    });
}

#[test]
fn a_first_use_undone_while_it_runs_leaves_an_unleased_volume_for_the_next_one() {
    in_own_namespace(|| async {
        let fixture = making(1).await;
        let faults = fixture.flocker.embedded().faults();
        let usage = by_name(&fixture.machine, "web", &[CREATE]);
        faults.add(held());
        let (csi, using) = (fixture.csi().clone(), usage.clone());
        let used = tokio::spawn(async move { csi.stage(&using).await });
        faults.until_met("held", 1).await;
        let (csi, undoing) = (fixture.csi().clone(), usage.clone());
        let undone = tokio::spawn(async move { csi.unstage(&undoing).await });
        // Staging does not begin again while the earlier one is being undone.
        eventually("the staging is cancelled", async || {
            let mut again = tonic::Request::new(usage.to_stage());
            again.set_timeout(std::time::Duration::from_millis(200));
            let refused = fixture.csi().node().node_stage_volume(again).await.unwrap_err();
            refused.message().contains("is still running").then_some(())
        })
        .await;
        faults.remove("held");
        assert_refused(used.await.unwrap(), Code::Cancelled, &["web"]);
        undone.await.unwrap().unwrap();
        end(fixture.csi(), &usage).await;
        assert!(fixture.machine.records().is_empty());
        let [made] = &live(&fixture.flocker).await[..] else {
            panic!("one dataset is live");
        };
        assert_eq!(fixture.flocker.leaseholder(made.dataset_id).await, None);

        begin(fixture.csi(), &usage).await.unwrap();
        end(fixture.csi(), &usage).await;
        assert_eq!(live(&fixture.flocker).await.len(), 1);
    });
}

#[test]
fn a_volume_deleted_before_it_is_leased_is_recreated_by_the_next_use() {
    in_own_namespace(|| async {
        let fixture = making(1).await;
        let faults = fixture.flocker.embedded().faults();
        let usage = by_name(&fixture.machine, "web", &[CREATE]);
        let lease = RequestFault::new("lease", Effect::LoseRequest).on("POST", "/v1/configuration/leases");
        faults.add(lease);
        let refused = fixture.csi().stage(&usage).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{}", refused.message());
        let made = live(&fixture.flocker).await.pop().unwrap().dataset_id;
        fixture.csi().delete(made).await.unwrap();
        faults.clear();
        assert_refused(
            fixture.csi().stage(&usage).await,
            Code::NotFound,
            &["web", &made.to_string()],
        );
        assert!(fixture.machine.records().is_empty());
        begin(fixture.csi(), &usage).await.unwrap();
        end(fixture.csi(), &usage).await;
        let [again] = &live(&fixture.flocker).await[..] else {
            panic!("one dataset is live");
        };
        assert_ne!(again.dataset_id, made);
    });
}

#[test]
fn a_plugin_that_is_killed_while_a_name_gets_its_volume_makes_no_second_one() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let faults = flocker.embedded().faults();
        let usage = by_name(&machine, "web", &[CREATE]);
        let flags = ["--create-on-first-use"];
        let plugin = machine.process(&flags).await;
        faults.add(held());
        let (csi, using) = (plugin.csi.clone(), usage.clone());
        let used = tokio::spawn(async move { csi.stage(&using).await });
        faults.until_met("held", 1).await;
        plugin.kill().await;
        used.await.unwrap().unwrap_err();
        assert!(machine.records().is_empty());

        // The next one creates it before Flocker carries out the first request.
        let plugin = machine.process(&flags).await;
        begin(&plugin.csi, &usage).await.unwrap();
        faults.remove("held");
        end(&plugin.csi, &usage).await;
        begin(&plugin.csi, &usage).await.unwrap();
        end(&plugin.csi, &usage).await;
        assert_eq!(live(&flocker).await.len(), 1);
        plugin.kill().await;
    });
}
