//! A collector of traces, by OTLP over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::eventually;

/// What a collector has taken so far.
#[derive(Clone, Debug, Default)]
struct Taken {
    spans: Vec<Span>,
    resource: Vec<KeyValue>,
}

/// A collector on this machine, until it is dropped.
pub(super) struct Collector {
    pub(super) address: SocketAddr,
    taken: Arc<Mutex<Taken>>,
    serving: JoinHandle<()>,
}

impl Collector {
    pub(super) async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(super) async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(Mutex::new(Taken::default()));
        let answering = Arc::clone(&taken);
        let take = move |headers: HeaderMap, body: Bytes| {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let mut taken = answering.lock().unwrap();
            for of_resource in request.resource_spans {
                taken.resource = of_resource.resource.unwrap().attributes;
                let scopes = of_resource.scope_spans.into_iter();
                taken.spans.extend(scopes.flat_map(|scope| scope.spans));
            }
            std::future::ready(Bytes::new())
        };
        let router = Router::new().route("/v1/traces", post(take));
        let serving = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            taken,
            serving,
        }
    }

    /// Returns the flag by which a plugin sends its spans here.
    pub(super) fn flag(&self) -> String {
        flag(self.address)
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        self.taken.lock().unwrap().spans.clone()
    }

    pub(super) fn resource(&self) -> Vec<KeyValue> {
        self.taken.lock().unwrap().resource.clone()
    }

    /// Waits for the span of a call, by the name of its method.
    pub(super) async fn call(&self, method: &str) -> Span {
        eventually(&format!("a span of {method}"), async || {
            let is_it = |span: &Span| kind(span) == SpanKind::Server && span.name.ends_with(method);
            self.spans().into_iter().find(is_it)
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Returns the flag by which a plugin sends its spans to an address.
pub(super) fn flag(address: SocketAddr) -> String {
    format!("--otlp-endpoint=http://{address}")
}

pub(super) fn kind(span: &Span) -> SpanKind {
    SpanKind::try_from(span.kind).unwrap()
}

/// Returns an attribute as text; an empty one if there is none.
pub(super) fn attribute(attributes: &[KeyValue], name: &str) -> String {
    let mut values = attributes.iter().filter(|attribute| attribute.key == name);
    let value = values.next().and_then(|attribute| attribute.value.as_ref());
    assert!(values.next().is_none(), "{name} is there twice: {attributes:?}");
    match value {
        None => String::new(),
        Some(AnyValue {
            value: Some(Value::StringValue(text)),
        }) => text.clone(),
        Some(AnyValue {
            value: Some(Value::IntValue(number)),
        }) => number.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}
