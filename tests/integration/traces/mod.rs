//! Traces: a span for each call, in the trace of its caller, with its phases and its requests to Flocker.

mod collector;
mod outages;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use csi_proto::v1::{DeleteVolumeRequest, NodeGetInfoRequest, ProbeRequest};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tonic::Request;
use uuid::Uuid;

use crate::support::csi::{Usage, capability, to_attach, to_create, to_detach};
use crate::support::eventually;
use crate::support::namespace::in_own_namespace;
use crate::support::scratch::Scratch;
use crate::support::standalone::Standalone;
use collector::{Collector, attribute, kind};

/// The span id that every caller has.
const CALLER: u64 = 0xb7ad_6b71_6920_3331;

/// What no span may hold.
const SECRET: &str = "correct-horse-battery";

/// Makes a request in a trace of its caller.
fn traced<T>(trace: Uuid, message: T) -> Request<T> {
    with_parent(&format!("00-{}-{CALLER:016x}-01", trace.simple()), message)
}

fn with_parent<T>(parent: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", parent.parse().unwrap());
    metadata.insert("tracestate", "vendor=1".parse().unwrap());
    request
}

/// Returns the trace of a caller, by the number of its call.
fn trace(number: u128) -> Uuid {
    Uuid::from_u128(0x0af7_6519_16cd_43dd_8448_eb21_1c80_3100 + number)
}

/// Starts a plugin whose Flocker logs the requests that belong to a trace.
async fn start(collector: &Collector) -> Standalone {
    let flags = [&*collector.flag(), "--log=info,flocker_embedded=debug"];
    Standalone::start_with(Scratch::new(), &flags).await
}

/// Lets a volume live, each of its calls in the trace with its number; returns its id and node.
async fn life(standalone: &Standalone) -> (Uuid, Uuid) {
    let csi = standalone.csi();
    let (mut controller, mut node) = (csi.controller(), csi.node());
    let info = node.node_get_info(NodeGetInfoRequest::default()).await.unwrap();
    let this_node: Uuid = info.into_inner().node_id.parse().unwrap();
    let volume = csi.try_create(traced(trace(0), to_create("data"))).await.unwrap();
    let request = traced(trace(1), to_attach(volume, this_node));
    let attached = controller.controller_publish_volume(request).await.unwrap();
    let place = standalone.scratch.path().join("data-paths");
    fs::create_dir_all(place.join("staging")).unwrap();
    let usage = Usage {
        volume_id: volume.to_string(),
        publish_context: attached.into_inner().publish_context,
        volume_context: [].into(),
        staging: place.join("staging"),
        target: place.join("target"),
        capability: capability(csi_proto::v1::volume_capability::access_mode::Mode::SingleNodeWriter),
        readonly: false,
    };
    let mut stage = usage.to_stage();
    stage.secrets = [("password".to_owned(), SECRET.to_owned())].into();
    node.node_stage_volume(traced(trace(2), stage)).await.unwrap();
    node.node_publish_volume(traced(trace(3), usage.to_publish()))
        .await
        .unwrap();
    node.node_unpublish_volume(traced(trace(4), usage.to_unpublish()))
        .await
        .unwrap();
    node.node_unstage_volume(traced(trace(5), usage.to_unstage()))
        .await
        .unwrap();
    let request = traced(trace(6), to_detach(volume, this_node));
    controller.controller_unpublish_volume(request).await.unwrap();
    let delete = DeleteVolumeRequest {
        volume_id: volume.to_string(),
        ..Default::default()
    };
    controller.delete_volume(traced(trace(7), delete)).await.unwrap();
    (volume, this_node)
}

#[test]
fn every_call_of_a_volumes_life_is_a_span_in_the_trace_of_its_caller() {
    in_own_namespace(|| async {
        let collector = Collector::start().await;
        let standalone = start(&collector).await;
        let (volume, node) = life(&standalone).await;
        let log = standalone.scratch.path().join("standalone.log");
        standalone.process.terminate().await;
        // The stop has sent what was left.
        let spans = collector.spans();
        for (number, (method, operation, phase)) in [
            ("csi.v1.Controller/CreateVolume", "create", "flocker_answering"),
            ("csi.v1.Controller/ControllerPublishVolume", "attach", "starting"),
            ("csi.v1.Node/NodeStageVolume", "stage", "flocker_answering"),
            ("csi.v1.Node/NodePublishVolume", "publish", "starting"),
            ("csi.v1.Node/NodeUnpublishVolume", "unpublish", "starting"),
            ("csi.v1.Node/NodeUnstageVolume", "unstage", "starting"),
            (
                "csi.v1.Controller/ControllerUnpublishVolume",
                "detach",
                "starting",
            ),
            ("csi.v1.Controller/DeleteVolume", "delete", "destroyed"),
        ]
        .into_iter()
        .enumerate()
        {
            let id = trace(number as u128);
            let of_trace: Vec<_> = spans
                .iter()
                .filter(|span| span.trace_id == id.as_bytes())
                .collect();
            let calls: Vec<_> = of_trace
                .iter()
                .filter(|span| kind(span) == SpanKind::Server)
                .collect();
            let [call] = calls[..] else {
                panic!("{method}: {of_trace:#?}")
            };
            assert_eq!(call.name, method);
            assert_eq!(call.parent_span_id, CALLER.to_be_bytes());
            assert_eq!(call.trace_state, "vendor=1");
            let status = call.status.clone().unwrap_or_default();
            assert_ne!(status.code(), StatusCode::Error, "{call:?}");
            assert!(call.start_time_unix_nano < call.end_time_unix_nano, "{call:?}");
            for (name, expected) in [
                ("rpc.method", format!("/{method}")),
                ("rpc.code", "OK".to_owned()),
                ("csi.version", "1".to_owned()),
                ("operation.name", operation.to_owned()),
                ("volume.id", volume.to_string()),
                ("volume.name", "data".to_owned()),
            ] {
                // A call of the Controller service that names the volume by its id has no name, as its line of the log.
                let value = attribute(&call.attributes, name);
                let unnamed = name == "volume.name" && value.is_empty() && method.contains("Controller");
                assert!(value == expected || unnamed, "{method}: {name} is {value:?}");
            }
            if method.contains("Node/") || method.ends_with("PublishVolume") {
                assert_eq!(
                    attribute(&call.attributes, "node.id"),
                    node.to_string(),
                    "{method}"
                );
            }
            if method.contains("Node/") {
                assert_ne!(attribute(&call.attributes, "host.name"), "", "{method}");
            }
            let operation_id = attribute(&call.attributes, "operation.id");
            assert!(operation_id.parse::<u64>().is_ok(), "{method}: {operation_id:?}");
            let phases: BTreeSet<_> = of_trace
                .iter()
                .filter(|span| kind(span) == SpanKind::Internal)
                .map(|span| {
                    assert_eq!(span.parent_span_id, call.span_id, "{span:?}");
                    assert_eq!(attribute(&span.attributes, "phase"), span.name);
                    &*span.name
                })
                .collect();
            assert!(phases.contains(phase), "{method}: {phases:?}");
            // A deletion waits for another operation, which has phases too.
            let of_operation = |span: &&&Span| attribute(&span.attributes, "operation.id") == operation_id;
            assert!(
                of_trace.iter().filter(of_operation).count() > 1,
                "{method}: {of_trace:?}"
            );
            requests_are_in_flockers_log(&log, method, call, &of_trace);
        }
        assert!(!format!("{spans:?}").contains(SECRET));
        let resource = collector.resource();
        for (name, value) in [
            ("service.name", "flocker-csi"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("driver.name", "flocker.csi.clusterhq.com"),
            ("mode", "all"),
        ] {
            assert_eq!(attribute(&resource, name), value);
        }
    });
}

/// Asserts that Flocker has logged each request of a call under the call's trace id.
fn requests_are_in_flockers_log(log: &Path, method: &str, call: &Span, of_trace: &[&Span]) {
    let requests: Vec<_> = of_trace
        .iter()
        .filter(|span| kind(span) == SpanKind::Client)
        .collect();
    for request in &requests {
        assert_eq!(request.parent_span_id, call.span_id, "{request:?}");
        assert_eq!(attribute(&request.attributes, "outcome"), "done");
    }
    let log = fs::read_to_string(log).unwrap();
    let task = Uuid::from_slice(&call.trace_id).unwrap();
    let logged = log.matches(&format!("eliot.task_id={task}@/")).count();
    assert_eq!(logged, requests.len(), "{method}: {requests:?}\n{log}");
    let asks_flocker = [
        "CreateVolume",
        "ControllerPublishVolume",
        "NodeStageVolume",
        "DeleteVolume",
    ];
    if asks_flocker.iter().any(|name| method.ends_with(name)) {
        assert!(logged > 0, "{method}: {log}");
    }
}

#[test]
fn a_call_that_fails_is_a_span_that_failed_with_its_code() {
    in_own_namespace(|| async {
        let collector = Collector::start().await;
        let standalone = start(&collector).await;
        let request = to_attach(Uuid::from_u128(7), Uuid::from_u128(8));
        let mut controller = standalone.csi().controller();
        let error = controller.controller_publish_volume(request).await.unwrap_err();
        let call = collector.call("ControllerPublishVolume").await;
        let status = call.status.clone().unwrap();
        assert_eq!(status.code(), StatusCode::Error);
        assert_eq!(status.message, format!("NOT_FOUND: {}", error.message()));
        assert_eq!(attribute(&call.attributes, "rpc.code"), "NOT_FOUND");
        assert!(call.parent_span_id.is_empty(), "no caller is named");
        let failed: Vec<_> = eventually("the phase in which it failed", async || {
            let phases = collector.spans().into_iter().filter(|span| {
                let failed = span.status.clone().unwrap_or_default().code() == StatusCode::Error;
                kind(span) == SpanKind::Internal && failed && span.trace_id == call.trace_id
            });
            Some(phases.collect::<Vec<_>>()).filter(|phases| !phases.is_empty())
        })
        .await;
        assert_eq!(failed.len(), 1, "{failed:?}");
        standalone.process.terminate().await;
    });
}

#[test]
fn a_malformed_parent_fails_no_call_and_one_that_is_not_sampled_is_not_exported() {
    in_own_namespace(|| async {
        let collector = Collector::start().await;
        let standalone = start(&collector).await;
        let mut identity = standalone.csi().identity();
        let malformed = [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "zz-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            &"0".repeat(4000),
        ];
        for parent in malformed {
            identity
                .probe(with_parent(parent, ProbeRequest {}))
                .await
                .unwrap();
        }
        let unsampled = trace(1);
        let parent = format!("00-{}-{CALLER:016x}-00", unsampled.simple());
        let created = with_parent(&parent, to_create("data"));
        standalone.csi().try_create(created).await.unwrap();
        // Flocker's log names the trace all the same.
        let task = format!("eliot.task_id={unsampled}@/");
        standalone.process.logged(&task).await;
        standalone.process.terminate().await;
        let spans = collector.spans();
        let probes: Vec<_> = spans
            .iter()
            .filter(|span| span.name == "csi.v1.Identity/Probe")
            .collect();
        assert_eq!(probes.len(), malformed.len());
        assert!(probes.iter().all(|span| span.parent_span_id.is_empty()));
        assert!(probes.iter().all(|span| span.trace_state.is_empty()));
        let traces: BTreeSet<_> = probes.iter().map(|span| &span.trace_id).collect();
        assert_eq!(traces.len(), malformed.len(), "each is a trace of its own");
        assert!(spans.iter().all(|span| span.trace_id != unsampled.as_bytes()));
    });
}

#[test]
fn a_call_that_joins_an_operation_links_to_the_call_that_began_it() {
    in_own_namespace(|| async {
        let collector = Collector::start().await;
        let standalone = start(&collector).await;
        let calls = (0..3).map(|number| {
            let csi = standalone.csi().clone();
            async move { csi.try_create(traced(trace(number), to_create("data"))).await }
        });
        for created in futures::future::join_all(calls).await {
            created.unwrap();
        }
        standalone.process.terminate().await;
        let calls: Vec<_> = collector
            .spans()
            .into_iter()
            .filter(|span| kind(span) == SpanKind::Server && span.name.ends_with("CreateVolume"))
            .collect();
        assert_eq!(calls.len(), 3);
        let (began, joined): (Vec<_>, Vec<_>) = calls.into_iter().partition(|span| span.links.is_empty());
        let [began] = &began[..] else {
            panic!("one call began the operation, not {began:#?}")
        };
        assert_eq!(joined.len(), 2);
        for call in joined {
            assert_eq!(call.links.len(), 1, "{call:?}");
            assert_eq!(call.links[0].trace_id, began.trace_id);
            assert_eq!(call.links[0].span_id, began.span_id);
            let id = |span: &Span| attribute(&span.attributes, "operation.id");
            assert_eq!(id(&call), id(began));
        }
    });
}
