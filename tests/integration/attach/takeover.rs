//! Volumes of nodes that are dead, or only appear to be.

use std::fs;
use std::time::Duration;

use flocker_csi::flocker::attach::Takeover;
use flocker_csi::flocker::cluster::Release;
use flocker_csi::telemetry::Counter;
use flocker_embedded::faults::{Effect, Faults, RequestFault};
use tokio::time::{Instant, sleep};
use tonic::Code;
use uuid::Uuid;

use super::{LEASE, LONG, NODES, attach, detach};
use crate::node::assert_refused;
use crate::support::csi::Csi;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

/// A node counts as dead sooner than any real setting allows.
const SOON: Duration = Duration::from_secs(1);
/// Longer than a test needs between two reads, however slow the machine is.
const LATER: Duration = Duration::from_secs(8);
/// How often an orchestrator tries again.
const AGAIN: Duration = Duration::from_millis(200);

/// Two nodes; the second one's plugin may take over volumes of the first one.
struct Fixture {
    flocker: Flocker,
    first: Machine,
    second: Machine,
}

impl Fixture {
    async fn start(takeover: Takeover, grace: Duration) -> Self {
        let flocker = Flocker::start(2).await;
        let (first, mut second) = (Machine::new(&flocker, 1), Machine::new(&flocker, 2));
        second.config.node_loss.takeover = takeover;
        second.config.node_loss.takeover_grace = grace;
        Self {
            flocker,
            first,
            second,
        }
    }

    fn faults(&self) -> &Faults {
        self.flocker.embedded().faults()
    }

    /// Makes Flocker list only the second node, as it does two minutes after the first one's last report.
    fn hide_the_first(&self) {
        let text = format!(r#"[{{"host": "127.0.0.2", "uuid": "{}"}}]"#, self.second.node());
        self.faults().add(listing("hidden", &text));
    }

    /// Attaches a volume to the first node.
    async fn volume(&self, csi: &Csi) -> Uuid {
        let volume = csi.create("data").await;
        csi.attach(volume, self.first.node()).await;
        self.flocker.reports(1, volume).await;
        volume
    }

    /// Publishes to the second node until that works, and returns how often it was refused.
    async fn taken_over(&self, csi: &Csi, volume: Uuid) -> u32 {
        let (first, second) = (self.first.node().to_string(), self.second.node());
        let mut refusals = 0;
        eventually("the volume is taken over", async || {
            let answer = attach(csi, volume, second, LONG).await;
            if answer.is_ok() {
                return Some(());
            }
            assert_refused(answer, Code::FailedPrecondition, &[&first, "takeover_grace"]);
            refusals += 1;
            sleep(AGAIN).await;
            None
        })
        .await;
        refusals
    }

    /// Interrupts the run of missing reports repeatedly, for longer than the grace, and checks that the volume is never
    /// taken over; then that it is.
    async fn run_is_broken_by(&self, fault: impl Fn() -> RequestFault) {
        let plugin = self.second.plugin().await;
        let volume = self.volume(&plugin.csi).await;
        let (first, second) = (self.first.node().to_string(), self.second.node());
        self.hide_the_first();
        let began = Instant::now();
        let mut breaks = 0;
        while began.elapsed() < LATER * 2 {
            self.faults().add(fault());
            eventually("the run is broken", async || {
                let answer = attach(&plugin.csi, volume, second, LONG).await;
                assert!(answer.is_err(), "taken over after {breaks} breaks");
                (self.faults().met("break") == 1).then_some(())
            })
            .await;
            self.faults().remove("break");
            breaks += 1;
            assert_refused(
                attach(&plugin.csi, volume, second, LONG).await,
                Code::FailedPrecondition,
                &[&first],
            );
            sleep(AGAIN).await;
        }
        assert_eq!(self.flocker.leaseholder(volume).await, Some(self.first.node()));
        self.taken_over(&plugin.csi, volume).await;
        plugin.stop().await;
    }
}

fn listing(name: &str, nodes: &str) -> RequestFault {
    let answer = Effect::Answer {
        status: 200,
        body: nodes.to_owned(),
    };
    RequestFault::new(name, answer).on("GET", NODES)
}

#[test]
fn a_volume_is_never_taken_from_a_node_unless_that_is_allowed() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(Takeover::Never, SOON).await;
        let plugin = fixture.second.plugin().await;
        let volume = fixture.volume(&plugin.csi).await;
        let (first, second) = (fixture.first.node(), fixture.second.node());
        fixture.hide_the_first();
        eventually("the node is dead", async || {
            let refused = attach(&plugin.csi, volume, second, LONG).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition);
            for part in [&*first.to_string(), "takeover = never"] {
                assert!(refused.message().contains(part), "{}", refused.message());
            }
            refused.message().contains("is gone").then_some(())
        })
        .await;
        assert_eq!(fixture.flocker.leaseholder(volume).await, Some(first));
        // An operator, or an orchestrator that detaches by force, decides.
        detach(&plugin.csi, volume, &first.to_string()).await.unwrap();
        attach(&plugin.csi, volume, second, LONG).await.unwrap();
    });
}

#[test]
fn a_volume_is_taken_from_a_dead_node_where_takeover_is_allowed() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(Takeover::NodeGone, SOON).await;
        let grace = format!("--takeover-grace={}s", SOON.as_secs());
        let process = fixture.second.process(&["--takeover=node-gone", &grace]).await;
        let volume = fixture.volume(&process.csi).await;
        let (first, second) = (fixture.first.node(), fixture.second.node());
        assert_refused(
            attach(&process.csi, volume, second, LONG).await,
            Code::FailedPrecondition,
            &[&first.to_string(), "flocker-csi leases release"],
        );
        fixture.hide_the_first();
        let refusals = fixture.taken_over(&process.csi, volume).await;
        assert!(refusals > 0, "one look is not enough");
        assert_eq!(fixture.flocker.leaseholder(volume).await, Some(second));
        let line = format!("The lease on dataset {volume} was taken from node {first}");
        let log = process.logged(&line).await;
        assert_eq!(log.matches(&line).count(), 1, "{log}");

        let context = attach(&process.csi, volume, second, LONG).await.unwrap();
        let usage = fixture.second.usage("data", volume, &context);
        process.csi.stage(&usage).await.unwrap();
        process.csi.publish(&usage).await.unwrap();
        fs::write(usage.target.join("file"), "").unwrap();
        process.kill().await;
    });
}

#[test]
fn a_lease_that_was_taken_over_is_counted_once_although_the_answer_is_lost() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(Takeover::NodeGone, SOON).await;
        let (volume, first) = (Uuid::new_v4(), fixture.first.node());
        let client = fixture.flocker.client().await;
        client.acquire_lease(volume, first, None).await.unwrap();
        let cluster = fixture.flocker.cluster();
        let lost = RequestFault::new("lost", Effect::LoseReply).on("DELETE", LEASE);
        fixture.faults().add(lost.once());
        for expected in [Release::Released, Release::NotHeld] {
            let release = cluster.take_over_lease(volume, first).await.unwrap();
            assert_eq!(release, expected);
            assert_eq!(cluster.counters().get(Counter::LeasesTakenOver), 1);
            assert_eq!(cluster.counters().get(Counter::LeasesPutBack), 0);
        }
    });
}

#[test]
fn a_node_that_attaches_for_itself_waits_until_the_other_one_is_dead() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(Takeover::NodeGone, SOON).await;
        let plugin = fixture.second.plugin().await;
        let volume = fixture.volume(&plugin.csi).await;
        let usage = fixture.second.usage("data", volume, &[].into());
        let (csi, staged) = (plugin.csi.clone(), usage.clone());
        let staging = tokio::spawn(async move { csi.stage(&staged).await });
        let words = format!("lease of node {}", fixture.first.node());
        super::wait_until_staging(&plugin.csi, &usage, &words).await;
        fixture.hide_the_first();
        staging.await.unwrap().unwrap();
        assert_eq!(
            fixture.flocker.leaseholder(volume).await,
            Some(fixture.second.node())
        );
        plugin.csi.unstage(&usage).await.unwrap();
    });
}

#[test]
fn an_empty_list_of_nodes_starts_the_wait_for_a_missing_node_again() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(Takeover::NodeGone, LATER).await;
        fixture.run_is_broken_by(|| listing("break", "[]").once()).await;
    });
}

#[test]
fn an_answer_that_fails_starts_the_wait_for_a_missing_node_again() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(Takeover::NodeGone, LATER).await;
        let failure = || {
            let answer = Effect::Answer {
                status: 500,
                body: "\"a bug\"".to_owned(),
            };
            RequestFault::new("break", answer).on("GET", NODES).once()
        };
        fixture.run_is_broken_by(failure).await;
    });
}

#[test]
fn a_node_that_is_listed_again_keeps_its_volume() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(Takeover::NodeGone, LATER).await;
        // The plugin reads the list every five seconds, and for each caller in between.
        fixture
            .run_is_broken_by(|| {
                let nodes = [(1, fixture.first.node()), (2, fixture.second.node())];
                let nodes = nodes
                    .map(|(number, node)| format!(r#"{{"host": "127.0.0.{number}", "uuid": "{node}"}}"#));
                listing("break", &format!("[{}]", nodes.join(","))).once()
            })
            .await;
    });
}

/// The id is mistyped, or the node is gone for good: "try again" says nothing of that.
#[test]
fn a_node_that_does_not_exist_is_answered_with_those_that_do() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(Takeover::Never, SOON).await;
        // A process of its own: which nodes were listed is known to a process, and this one has those of other tests too.
        let plugin = fixture.second.process(&["--takeover-grace=1s"]).await;
        let volume = plugin.csi.create("data").await;
        let (mistyped, listed) = (Uuid::new_v4(), fixture.first.node().to_string());
        let parts = [mistyped.to_string(), listed, "127.0.0.1".to_owned()];
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let short = attach(&plugin.csi, volume, mistyped, Duration::from_millis(700)).await;
        assert_refused(short, Code::Unavailable, &parts);
        assert_refused(
            attach(&plugin.csi, volume, mistyped, LONG).await,
            Code::NotFound,
            &parts,
        );
        assert_eq!(fixture.flocker.leaseholder(volume).await, None);
        plugin.csi.delete(volume).await.unwrap();
        plugin.terminate().await;
    });
}
