//! Names that no dataset has yet.

use std::fs;
use std::time::Duration;

use flocker_csi::flocker::provisioning::Pool;
use flocker_embedded::faults::{Effect, RequestFault};
use tonic::Code;

use super::{DATASETS, MIB, begin, by_name, declare, end, keys, live, making};
use crate::node::{Fixture, assert_refused};
use crate::support::csi::{Csi, Usage};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

const STATE: &str = "/v1/state/datasets";
const CREATE: (&str, &str) = ("flocker.create", "true");

#[test]
fn a_name_used_for_the_first_time_makes_a_volume_that_every_later_use_finds() {
    in_own_namespace(|| async {
        let fixture = making(2).await;
        let context = [CREATE, ("flocker.size", "70MiB"), ("flocker.profile", "gold")];
        let usage = by_name(&fixture.machine, "web", &context);
        begin(fixture.csi(), &usage).await.unwrap();
        fs::write(usage.target.join("precious"), "data").unwrap();
        let made = live(&fixture.flocker).await.pop().unwrap();
        let found = keys(
            &made.metadata,
            &["FLOCKER_ID", "name", "csi.driver", "clusterhq:flocker:profile"],
        );
        let expected = ["web", "web", "flocker.csi.clusterhq.com", "gold"];
        assert_eq!(found, expected.map(|value| Some(value.to_owned())));
        assert_eq!(
            (made.primary, made.maximum_size),
            (fixture.machine.node(), Some(70 * MIB))
        );
        end(fixture.csi(), &usage).await;

        // Another agent with the same options, and one with another size.
        let mut other = Machine::new(&fixture.flocker, 2);
        other.config.plugin.create_on_first_use = true;
        let plugin = other.plugin().await;
        for context in [&context[..], &[CREATE, ("flocker.size", "1GiB")]] {
            let usage = by_name(&other, "web", context);
            begin(&plugin.csi, &usage).await.unwrap();
            assert_eq!(fs::read_to_string(usage.target.join("precious")).unwrap(), "data");
            end(&plugin.csi, &usage).await;
        }
        assert_eq!(live(&fixture.flocker).await.len(), 1);
    });
}

#[test]
fn a_name_whose_volume_was_deleted_can_be_used_again() {
    in_own_namespace(|| async {
        let fixture = making(1).await;
        let usage = by_name(&fixture.machine, "web", &[CREATE]);
        let mut ids = Vec::new();
        for _ in 0..3 {
            begin(fixture.csi(), &usage).await.unwrap();
            assert!(!usage.target.join("precious").exists());
            fs::write(usage.target.join("precious"), "data").unwrap();
            end(fixture.csi(), &usage).await;
            let [dataset] = &live(&fixture.flocker).await[..] else {
                panic!("one dataset is live");
            };
            fixture.csi().delete(dataset.dataset_id).await.unwrap();
            ids.push(dataset.dataset_id);
        }
        ids.dedup();
        assert_eq!(ids.len(), 3);
    });
}

#[test]
fn two_agents_that_use_a_new_name_at_once_make_one_dataset() {
    in_own_namespace(|| async {
        let fixture = making(2).await;
        let mut other = Machine::new(&fixture.flocker, 2);
        other.config.plugin.create_on_first_use = true;
        let plugin = other.plugin().await;
        let faults = fixture.flocker.embedded().faults().clone();
        let (one, two) = (
            by_name(&fixture.machine, "web", &[CREATE]),
            by_name(&other, "web", &[CREATE, ("flocker.size", "80MiB")]),
        );
        // Nothing is made before both have looked for the name and requested a dataset.
        let slow = Effect::Delay(Duration::from_millis(500));
        faults.add(RequestFault::new("slow", slow).on("POST", DATASETS));
        let until_both_asked = async {
            faults.until_met("slow", 2).await;
            faults.clear();
        };
        // Both use it, one after the other.
        tokio::join!(
            first_come(&fixture.plugin.csi, &one),
            first_come(&plugin.csi, &two),
            until_both_asked
        );
        let counters = fixture.flocker.embedded().counters();
        assert_eq!(counters.answered("POST", DATASETS, 201), 1);
        assert_eq!(live(&fixture.flocker).await.len(), 1);
    });
}

/// Uses the volume and releases it for the next caller.
async fn first_come(csi: &Csi, usage: &Usage) {
    begin(csi, usage).await.unwrap();
    end(csi, usage).await;
}

#[test]
fn a_first_use_whose_reply_was_lost_makes_one_dataset() {
    in_own_namespace(|| async {
        for effect in [Effect::LoseReply, Effect::LoseRequest] {
            let fixture = making(1).await;
            let usage = by_name(&fixture.machine, "web", &[CREATE]);
            let lost = RequestFault::new("lost", effect.clone()).on("POST", DATASETS);
            fixture.flocker.embedded().faults().add(lost.once());
            begin(fixture.csi(), &usage).await.unwrap();
            assert_eq!(fixture.flocker.embedded().faults().met("lost"), 1, "{effect:?}");
            assert_eq!(live(&fixture.flocker).await.len(), 1);
            end(fixture.csi(), &usage).await;
        }
    });
}

#[test]
fn an_invalid_context_is_refused_and_nothing_is_created() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        machine.config.plugin.create_on_first_use = true;
        machine.config.pools = vec![pool("gold", 200), pool("silver", 100)];
        let fixture = Fixture::on(machine, flocker).await;
        let tenant = declare(&fixture.flocker, 1, &[("FLOCKER_ID", "there")]).await;
        let long = "x".repeat(129);
        let cases = [
            (
                "web",
                ("flocker.size", "10GB"),
                Code::InvalidArgument,
                "binary unit (GiB)",
            ),
            (
                "web",
                ("flocker.size", "-1"),
                Code::InvalidArgument,
                "expected a size",
            ),
            (
                "web",
                ("flocker.size", "300MiB"),
                Code::OutOfRange,
                "can never fit",
            ),
            (
                "web",
                ("flocker.profile", "golt"),
                Code::InvalidArgument,
                "did you mean \"gold\"?",
            ),
            (
                "web",
                ("flocker.profil", "gold"),
                Code::InvalidArgument,
                "did you mean \"flocker.profile\"?",
            ),
            (
                "web",
                ("floker.size", "1GiB"),
                Code::InvalidArgument,
                "did you mean \"flocker.size\"?",
            ),
            (
                "web",
                ("FLOCKER_ID", "web"),
                Code::InvalidArgument,
                "is the volume id",
            ),
            (
                &long,
                ("flocker.size", "64MiB"),
                Code::InvalidArgument,
                "129 bytes",
            ),
            // Also if no dataset must be created.
            (
                "there",
                ("flocker.size", "big"),
                Code::InvalidArgument,
                "flocker.size: expected a size",
            ),
        ];
        for (name, (key, value), code, part) in cases {
            let profile = ("flocker.profile", "gold");
            let context: Vec<_> = [CREATE, profile]
                .into_iter()
                .filter(|(ours, _)| *ours != key)
                .chain([(key, value)])
                .collect();
            let usage = by_name(&fixture.machine, name.get(..20).unwrap_or(name), &context);
            let usage = Usage {
                volume_id: name.to_owned(),
                ..usage
            };
            assert_refused(fixture.csi().stage(&usage).await, code, &[part]);
            assert!(fixture.machine.records().is_empty());
        }
        let left: Vec<_> = live(&fixture.flocker)
            .await
            .into_iter()
            .map(|dataset| dataset.dataset_id)
            .collect();
        assert_eq!(left, [tenant]);
    });
}

pub(super) fn pool(profile: &str, mib: u64) -> Pool {
    Pool {
        profile: Some(profile.to_owned()),
        capacity: mib * MIB,
        per_node: false,
    }
}

/// The reads that follow the slow timer would be one more of the configuration and of the leases.
#[test]
fn a_name_used_for_the_first_time_where_flocker_mounts_elsewhere_waits_for_no_timer() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        machine.config.plugin.create_on_first_use = true;
        machine.config.node.mount_root = machine.path("not-flockers");
        let fixture = Fixture::on(machine, flocker).await;
        let first = by_name(&fixture.machine, "web", &[CREATE]);
        begin(fixture.csi(), &first).await.unwrap();
        end(fixture.csi(), &first).await;
        let volume = live(&fixture.flocker).await.pop().unwrap().dataset_id;
        fixture.flocker.reports(1, volume).await;

        let counters = || fixture.flocker.embedded().counters();
        for name in ["web", "new"] {
            let usage = by_name(&fixture.machine, name, &[CREATE]);
            let before = counters();
            fixture.csi().stage(&usage).await.unwrap();
            let after = counters();
            let read = |list| after.asked("GET", list) - before.asked("GET", list);
            // By the name, for a new one's place or before its lease is acquired, after that, and before the mount.
            assert!(read(DATASETS) <= 4, "{} of {name}", read(DATASETS));
            assert!(
                read(STATE) >= 2,
                "of the attachment, and of the path: {}",
                read(STATE)
            );
            fixture.csi().unstage(&usage).await.unwrap();
        }
    });
}
