//! A collector that is down, hangs or refuses: no call waits for it.

use std::net::{SocketAddr, TcpListener};

use csi_proto::v1::ProbeRequest;
use futures::StreamExt;

use super::collector::{Collector, flag};
use crate::kubelet::probes::get;
use crate::monitoring::{free_address, metrics, shows};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;

/// More than wait for a collector, and are being sent to it.
const CALLS: usize = 2000;

const DROPPED: &str = "flocker_csi_spans_dropped_total";

async fn plugin(machine: &Machine, collector: SocketAddr) -> (Process, SocketAddr) {
    let at = free_address();
    let flags = [flag(collector), format!("--metrics-address={at}")];
    let plugin = machine.process(&[&flags[0], &flags[1]]).await;
    (plugin, at)
}

async fn probe(plugin: &Process, calls: usize) {
    let identity = plugin.csi.identity();
    let probes = futures::stream::iter(0..calls).map(|_| {
        let mut identity = identity.clone();
        async move { identity.probe(ProbeRequest {}).await }
    });
    let answers: Vec<_> = probes.buffer_unordered(50).collect().await;
    assert!(answers.iter().all(Result::is_ok));
}

async fn dropped(at: SocketAddr) -> f64 {
    metrics::value(&get(at, "/metrics").await.1, DROPPED).unwrap()
}

#[test]
fn a_collector_that_hangs_delays_no_call_and_its_outage_is_logged_once() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        // The kernel accepts connections for it, and it answers none, as one that is stopped.
        let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = hanging.local_addr().unwrap();
        let (plugin, at) = plugin(&machine, address).await;
        shows(at, &[("spans_dropped_total", 0.0)]).await;
        probe(&plugin, CALLS).await;
        plugin.csi.create("data").await;
        // A queue and a few batches hold the rest.
        assert!(dropped(at).await > 100.0, "{}", dropped(at).await);
        // The connection ends, and then there is nothing.
        drop(hanging);
        plugin
            .logged(&format!(
                "The collector of traces at http://{address}/v1/traces does not answer"
            ))
            .await;
        let lost = dropped(at).await;
        let collector = Collector::at(address).await;
        plugin.logged("answers again").await;
        collector.call("Identity/Probe").await;
        plugin.csi.create("more").await;
        eventually("the calls after the outage", async || {
            let spans = collector.spans().into_iter();
            let created = spans.filter(|span| span.name.ends_with("CreateVolume")).count();
            (created >= 1).then_some(())
        })
        .await;
        assert!(dropped(at).await >= lost);
        let log = plugin.log();
        assert_eq!(
            log.matches("does not answer; calls do not wait").count(),
            1,
            "{log}"
        );
        assert_eq!(log.matches("answers again, after").count(), 1, "{log}");
        plugin.terminate().await;
    });
}

#[test]
fn a_stop_waits_for_a_collector_that_hangs_for_a_bounded_time() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
        let (plugin, _) = plugin(&machine, hanging.local_addr().unwrap()).await;
        probe(&plugin, 10).await;
        let log = machine.path("plugin.log");
        // Which fails unless the stop is graceful.
        plugin.terminate().await;
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains("has not taken the last spans within 2s"), "{log}");
    });
}

#[test]
fn a_collector_that_refuses_is_said_to_and_its_spans_are_counted() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let collector = Collector::start().await;
        let at = free_address();
        // A path at which it takes nothing.
        let endpoint = format!("{}/elsewhere", collector.flag());
        let address = format!("--metrics-address={at}");
        let plugin = machine.process(&[&endpoint, &address]).await;
        probe(&plugin, 10).await;
        let log = plugin.logged("refuses spans").await;
        assert!(log.contains("it answers 404 Not Found"), "{log}");
        eventually("the spans are counted", async || {
            (dropped(at).await >= 10.0).then_some(())
        })
        .await;
        plugin.terminate().await;
    });
}
