//! The metrics of a plugin, after calls whose number is known.

use std::collections::HashMap;
use std::time::Duration;

use csi_proto::v1::NodeUnpublishVolumeRequest;
use http::uri::PathAndQuery;
use tonic::Code;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use crate::kubelet::probes::{PROBES, address, get, say};
use crate::node::unknown_id;
use crate::support::csi::{to_attach, within};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::scratch::Scratch;
use crate::support::standalone::Standalone;

/// Returns the value of a series, written as the plugin writes it.
pub(crate) fn value(metrics: &str, series: &str) -> Option<f64> {
    let lines = metrics.lines();
    let mut values = lines.filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    values.next().map(|value| value.parse().unwrap())
}

fn calls(metrics: &str, method: &str, code: &str) -> Option<f64> {
    let (service, method) = method.split_once('/').unwrap();
    value(
        metrics,
        &format!(
            r#"flocker_csi_rpc_duration_seconds_count{{service="{service}",method="{method}",code="{code}",csi_version="1"}}"#
        ),
    )
}

#[test]
fn every_call_phase_and_request_of_a_volumes_life_is_counted() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[PROBES]).await;
        let at = address(&plugin).await;
        let answer = say(at, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(
            answer
                .contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
            "{answer}"
        );
        assert!(answer.ends_with("# EOF\n"), "{answer}");

        let csi = &plugin.csi;
        let volume = csi.create("data").await;
        let context = csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();
        csi.unpublish(&usage).await.unwrap();
        csi.unstage(&usage).await.unwrap();
        csi.detach(volume, machine.node()).await;
        csi.delete(volume).await.unwrap();
        let nameless = csi
            .node()
            .node_unpublish_volume(NodeUnpublishVolumeRequest::default())
            .await;
        assert_eq!(nameless.unwrap_err().code(), Code::InvalidArgument);

        // Calls are counted when their answers have been sent.
        let (_, metrics) = eventually("all calls are counted", async || {
            let (code, metrics) = get(at, "/metrics").await;
            calls(&metrics, "Node/NodeUnpublishVolume", "INVALID_ARGUMENT").map(|_| (code, metrics))
        })
        .await;
        for method in [
            "Controller/CreateVolume",
            "Controller/ControllerPublishVolume",
            "Node/NodeStageVolume",
            "Node/NodePublishVolume",
            "Node/NodeUnpublishVolume",
            "Node/NodeUnstageVolume",
            "Controller/ControllerUnpublishVolume",
            "Controller/DeleteVolume",
        ] {
            assert_eq!(calls(&metrics, method, "OK"), Some(1.0), "{method}\n{metrics}");
        }
        for (operation, phase) in [
            ("create", "flocker_answering"),
            ("attach", "flocker_answering"),
            ("stage", "flocker_answering"),
            ("publish", "starting"),
            ("unpublish", "starting"),
            ("detach", "flocker_answering"),
            ("delete", "flocker_answering"),
        ] {
            let series = format!(
                r#"flocker_csi_phase_duration_seconds_count{{operation="{operation}",phase="{phase}"}}"#
            );
            assert!(value(&metrics, &series) >= Some(1.0), "{series}\n{metrics}");
        }
        for (endpoint, outcome) in [
            ("POST /v1/configuration/datasets", "done"),
            ("POST /v1/configuration/leases", "done"),
            ("DELETE /v1/configuration/leases/{id}", "done"),
            ("DELETE /v1/configuration/datasets/{id}", "done"),
        ] {
            let series = format!(
                r#"flocker_csi_flocker_request_duration_seconds_count{{endpoint="{endpoint}",outcome="{outcome}"}}"#
            );
            assert_eq!(value(&metrics, &series), Some(1.0), "{series}\n{metrics}");
        }
        assert_eq!(value(&metrics, "flocker_csi_flocker_up"), Some(1.0));
        assert!(value(&metrics, "flocker_csi_flocker_last_answer_age_seconds") < Some(60.0));
        assert_eq!(value(&metrics, "flocker_csi_log_lines_lost_total"), Some(0.0));
        assert_eq!(
            value(&metrics, r#"flocker_csi_build_info{version="0.1.0"}"#),
            Some(1.0)
        );
        plugin.kill().await;
    });
}

/// Checks that `docs/metrics.md` has a row for each metric of the plugin and of an embedded Flocker, with the same words, and
/// no other.
#[test]
fn the_page_of_metrics_lists_what_there_is() {
    in_own_namespace(|| async {
        let standalone = Standalone::start_with(Scratch::new(), &[PROBES]).await;
        // A histogram without events is not shown.
        standalone.published("data").await;
        let at = address(&standalone.process).await;
        let metrics = eventually("there are calls, phases and requests", async || {
            let (_, metrics) = get(at, "/metrics").await;
            calls(&metrics, "Controller/CreateVolume", "OK").map(|_| metrics)
        })
        .await;
        let described = |what: &'static str| {
            let lines = metrics.lines().filter_map(move |line| line.strip_prefix(what));
            lines.filter_map(|line| line.split_once(' '))
        };
        let help: HashMap<_, _> = described("# HELP ").collect();
        let mut rows: Vec<_> = described("# TYPE ")
            .map(|(name, kind)| {
                let total = if kind == "counter" { "_total" } else { "" };
                format!("| `{name}{total}` | {kind} | {} |", help[name])
            })
            .collect();
        rows.sort();
        let page = include_str!("../../../docs/metrics.md");
        let on_page: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("| `flocker_csi_") || line.starts_with("| `flocker_embedded_"))
            .collect();
        assert_eq!(on_page, rows, "the rows should be\n{}", rows.join("\n"));
        standalone.process.kill().await;
    });
}

#[test]
fn a_call_that_waits_and_a_flocker_that_is_silent_show_while_they_last() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[PROBES]).await;
        let at = address(&plugin).await;
        let volume = plugin.csi.create("data").await;
        // Flocker does not list that node.
        let (csi, node) = (plugin.csi.clone(), unknown_id());
        let request = within(Duration::from_secs(20), to_attach(volume, node));
        let attaching = tokio::spawn(async move { csi.try_attach(request).await });
        eventually("the call shows as one that waits for a node", async || {
            let (_, metrics) = get(at, "/metrics").await;
            let waiting = r#"flocker_csi_operations_running{operation="attach",phase="node_reporting"}"#;
            let age = r#"flocker_csi_oldest_operation_age_seconds{operation="attach"}"#;
            (value(&metrics, waiting) == Some(1.0) && value(&metrics, age) > Some(0.0)).then_some(())
        })
        .await;
        let faults = flocker.embedded().faults();
        faults.change(|plan| plan.control_stopped = true);
        eventually("the failed reads of that call show", async || {
            let (_, metrics) = get(at, "/metrics").await;
            (value(&metrics, "flocker_csi_flocker_up") == Some(0.0)).then_some(())
        })
        .await;
        faults.clear();
        eventually("Flocker shows as up again", async || {
            let (_, metrics) = get(at, "/metrics").await;
            (value(&metrics, "flocker_csi_flocker_up") == Some(1.0)).then_some(())
        })
        .await;
        plugin.csi.detach(volume, node).await;
        attaching.await.unwrap().unwrap_err();
        let (_, metrics) = get(at, "/metrics").await;
        assert!(
            !metrics.contains("\nflocker_csi_operations_running{"),
            "{metrics}"
        );
        plugin.kill().await;
    });
}

#[test]
fn a_method_that_a_client_invents_makes_no_series_of_its_own() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[PROBES]).await;
        let at = address(&plugin).await;
        for number in 0..50 {
            let mut grpc = Grpc::new(plugin.csi.channel());
            grpc.ready().await.unwrap();
            let path = PathAndQuery::try_from(format!("/csi.v1.Node/Invented{number}")).unwrap();
            let codec = ProstCodec::<NodeUnpublishVolumeRequest, NodeUnpublishVolumeRequest>::default();
            let refused = grpc
                .unary(
                    tonic::Request::new(NodeUnpublishVolumeRequest::default()),
                    path,
                    codec,
                )
                .await;
            assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
        }
        let series = r#"flocker_csi_rpc_duration_seconds_count{service="other",method="other",code="UNIMPLEMENTED",csi_version="none"}"#;
        let metrics = eventually("all are counted", async || {
            let (_, metrics) = get(at, "/metrics").await;
            (value(&metrics, series) == Some(50.0)).then_some(metrics)
        })
        .await;
        assert!(!metrics.contains("Invented"), "{metrics}");
        plugin.kill().await;
    });
}
