//! The server in front of the services: its services, its stop, its log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use csi_proto::v1::ProbeRequest;
use csi_proto::v1::controller_client::ControllerClient;
use csi_proto::v1::identity_client::IdentityClient;
use csi_proto::v1::node_client::NodeClient;
use csi_proto::{v0, v1};
use flocker_csi::commands::serve::services::Part;
use flocker_csi::config::Endpoint;
use flocker_csi::server::{BindError, Listener, SocketError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1 as reflection, v1alpha as old_reflection};

use crate::log::Log;
use crate::recorder::{Behaviour, PATIENCE, Served};

/// A grace that no test reaches.
const LONG: Duration = Duration::from_secs(3600);

struct Plugin {
    served: Served,
    channel: Channel,
    directory: TempDir,
}

impl Plugin {
    async fn start(node: bool, grace: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(directory.path().join("csi.sock"));
        let served = Served::start(&endpoint, node, grace).await;
        let channel = connect(&served.endpoint).await;
        Self {
            served,
            channel,
            directory,
        }
    }

    fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone())
    }

    fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }

    /// Reads the health of a service by each of its names, which must be the same.
    async fn is_healthy(&self, part: Part) -> Result<bool, Code> {
        let mut states = Vec::new();
        for name in part.names() {
            let request = HealthCheckRequest {
                service: (*name).to_owned(),
            };
            let answer = self.health().check(request).await;
            let answer = answer.map(|answer| answer.into_inner().status() == ServingStatus::Serving);
            states.push(answer.map_err(|status| status.code()));
        }
        states.dedup();
        assert_eq!(states.len(), 1, "{part:?}: {states:?}");
        states.remove(0)
    }

    fn socket_exists(&self) -> bool {
        self.directory.path().join("csi.sock").exists()
    }

    /// Calls Probe, and returns once it has reached the service, which waits for a permit.
    async fn begin_call(&self) -> (Arc<Semaphore>, tokio::task::JoinHandle<Result<(), Status>>) {
        let permits = Arc::new(Semaphore::new(0));
        self.served.recorder.behave(Behaviour::Wait(permits.clone()));
        let mut identity = self.identity();
        let call = tokio::spawn(async move { identity.probe(ProbeRequest {}).await.map(drop) });
        self.served.recorder.take(1).await;
        (permits, call)
    }
}

async fn connect(endpoint: &Endpoint) -> Channel {
    let uri = endpoint.to_string().replace("tcp://", "http://");
    tonic::transport::Endpoint::from_shared(uri)
        .unwrap()
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn services_answer_on_either_kind_of_endpoint() {
    let tcp = Served::start(&"tcp://[::1]:0".parse().unwrap(), true, LONG).await;
    let over_tcp = connect(&tcp.endpoint).await;
    let plugin = Plugin::start(true, LONG).await;
    for channel in [plugin.channel.clone(), over_tcp] {
        IdentityClient::new(channel.clone())
            .probe(ProbeRequest {})
            .await
            .unwrap();
        ControllerClient::new(channel.clone())
            .list_volumes(v1::ListVolumesRequest::default())
            .await
            .unwrap();
        NodeClient::new(channel.clone())
            .node_get_info(v1::NodeGetInfoRequest {})
            .await
            .unwrap();
        let mut old = v0::identity_client::IdentityClient::new(channel);
        old.probe(v0::ProbeRequest {}).await.unwrap();
    }
    assert_eq!((plugin.served.recorder.count(), tcp.recorder.count()), (4, 4));
    plugin.served.stop().await;
    tcp.stop().await;
}

#[tokio::test]
async fn calls_that_are_not_offered_are_unimplemented() {
    let plugin = Plugin::start(false, LONG).await;
    let node = NodeClient::new(plugin.channel.clone())
        .node_get_info(v1::NodeGetInfoRequest {})
        .await;
    assert_eq!(node.unwrap_err().code(), Code::Unimplemented);
    let mut old = v0::node_client::NodeClient::new(plugin.channel.clone());
    let node = old.node_get_id(v0::NodeGetIdRequest {}).await;
    assert_eq!(node.unwrap_err().code(), Code::Unimplemented);
    plugin.served.stop().await;
}

#[tokio::test]
async fn health_reports_the_plugins_state() {
    let plugin = Plugin::start(false, LONG).await;
    for part in [Part::Plugin, Part::Identity, Part::Controller] {
        assert_eq!(plugin.is_healthy(part).await, Ok(true), "{part:?}");
    }
    plugin.served.health.set(Part::Controller.names(), false).await;
    plugin.served.health.set(Part::Node.names(), true).await;
    assert_eq!(plugin.is_healthy(Part::Controller).await, Ok(false));
    assert_eq!(plugin.is_healthy(Part::Plugin).await, Ok(true));
    assert_eq!(
        plugin.is_healthy(Part::Node).await,
        Err(Code::NotFound),
        "Node is not offered"
    );
    plugin.served.stop().await;
}

#[tokio::test]
async fn reflection_lists_exactly_the_offered_services() {
    use reflection::server_reflection_request::MessageRequest;
    use reflection::server_reflection_response::MessageResponse;

    let plugin = Plugin::start(false, LONG).await;
    let ask = async |request| {
        let mut client =
            reflection::server_reflection_client::ServerReflectionClient::new(plugin.channel.clone());
        let request = reflection::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        };
        let mut answers = client
            .server_reflection_info(tokio_stream::once(request))
            .await?
            .into_inner();
        let answer = answers.next().await.expect("an answer")?;
        Ok::<_, Status>(answer.message_response.expect("a message"))
    };
    let MessageResponse::ListServicesResponse(list) =
        ask(MessageRequest::ListServices(String::new())).await.unwrap()
    else {
        panic!("not a list");
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "csi.v1.Identity",
            "csi.v0.Identity",
            "csi.v1.Controller",
            "csi.v0.Controller",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ]
    );
    for name in names {
        ask(MessageRequest::FileContainingSymbol(name.to_owned()))
            .await
            .unwrap();
    }
    ask(MessageRequest::FileContainingSymbol(
        "csi.v1.VolumeCapability".to_owned(),
    ))
    .await
    .unwrap();
    ask(MessageRequest::FileByFilename(
        "google/protobuf/timestamp.proto".to_owned(),
    ))
    .await
    .unwrap();
    let never = ask(MessageRequest::FileContainingSymbol("csi.v2.Identity".to_owned())).await;
    assert_eq!(never.unwrap_err().code(), Code::NotFound);
    plugin.served.stop().await;
}

#[tokio::test]
async fn reflection_answers_old_clients_too() {
    use old_reflection::server_reflection_client::ServerReflectionClient;
    use old_reflection::server_reflection_request::MessageRequest;

    let plugin = Plugin::start(true, LONG).await;
    let request = old_reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol("csi.v1.Node".to_owned())),
    };
    let mut client = ServerReflectionClient::new(plugin.channel.clone());
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    assert!(answers.next().await.unwrap().unwrap().message_response.is_some());
    plugin.served.stop().await;
}

#[tokio::test]
async fn a_client_that_says_nothing_or_little_does_not_delay_the_stop() {
    let plugin = Plugin::start(true, LONG).await;
    let mut silent = UnixStream::connect(plugin.directory.path().join("csi.sock"))
        .await
        .unwrap();
    let mut hesitant = UnixStream::connect(plugin.directory.path().join("csi.sock"))
        .await
        .unwrap();
    hesitant.write_all(b"PRI * HTTP/2").await.unwrap();
    plugin.identity().probe(ProbeRequest {}).await.unwrap();
    let directory = plugin.directory;
    plugin.served.stop().await;
    for client in [&mut silent, &mut hesitant] {
        let mut rest = Vec::new();
        // A connection with unread bytes is reset when it is closed.
        let end = timeout(PATIENCE, client.read_to_end(&mut rest))
            .await
            .expect("the connection is closed");
        assert!(end.is_ok() || end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
    }
    drop(directory);
}

#[tokio::test]
async fn the_socket_is_removed_at_once_and_a_running_call_may_end() {
    let plugin = Plugin::start(true, LONG).await;
    let (permits, call) = plugin.begin_call().await;
    assert!(plugin.socket_exists());
    plugin.served.shutdown.cancel();
    crate::recorder::wait_until(|| !plugin.socket_exists(), "the socket to go").await;
    assert!(!call.is_finished());
    permits.add_permits(1);
    call.await.unwrap().unwrap();
    plugin.served.stop().await;
}

#[tokio::test]
async fn a_call_that_outlasts_the_grace_is_dropped() {
    let plugin = Plugin::start(true, Duration::from_millis(20)).await;
    let (permits, call) = plugin.begin_call().await;
    plugin.served.stop().await;
    call.await.unwrap().unwrap_err();
    assert_eq!(
        Arc::strong_count(&permits),
        1,
        "the handler and the server have ended"
    );
}

#[tokio::test]
async fn a_server_that_is_dropped_leaves_no_connection_and_no_socket() {
    let plugin = Plugin::start(true, LONG).await;
    let (_permits, call) = plugin.begin_call().await;
    plugin.served.task.abort();
    call.await.unwrap().unwrap_err();
    assert!(!plugin.directory.path().join("csi.sock").exists());
}

#[tokio::test]
async fn watchers_of_the_health_get_the_stop_and_are_released() {
    let plugin = Plugin::start(true, LONG).await;
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let mut watch = plugin.health().watch(request).await.unwrap().into_inner();
    assert_eq!(
        watch.next().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    plugin.served.stop().await;
    assert_eq!(
        watch.next().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn an_endpoint_in_use_is_refused_and_its_server_keeps_serving() {
    let plugin = Plugin::start(true, LONG).await;
    let error = Listener::bind(&plugin.served.endpoint).await.unwrap_err();
    assert!(
        matches!(error, BindError::Socket(SocketError::InUse { .. })),
        "{error}"
    );
    plugin.identity().probe(ProbeRequest {}).await.unwrap();
    plugin.served.stop().await;

    let tcp = Served::start(&"tcp://127.0.0.1:0".parse().unwrap(), true, LONG).await;
    let error = Listener::bind(&tcp.endpoint).await.unwrap_err();
    assert!(matches!(error, BindError::PortInUse { .. }), "{error}");
    let Endpoint::Tcp(address) = tcp.endpoint else {
        panic!("not TCP")
    };
    assert!(error.to_string().contains(&address.port().to_string()), "{error}");
    tcp.stop().await;
}

#[tokio::test]
async fn headers_that_are_too_long_are_refused_and_the_server_goes_on() {
    let plugin = Plugin::start(true, LONG).await;
    for len in [20_000, 200_000] {
        let mut request = tonic::Request::new(ProbeRequest {});
        request
            .metadata_mut()
            .insert("x-long", "x".repeat(len).parse().unwrap());
        let channel = connect(&plugin.served.endpoint).await;
        IdentityClient::new(channel).probe(request).await.unwrap_err();
    }
    assert_eq!(plugin.served.recorder.count(), 0);
    plugin.identity().probe(ProbeRequest {}).await.unwrap();
    plugin.served.stop().await;
}

/// Returns the lines about the ends of calls of a method.
fn ends_of(log: &Log, method: &str) -> Vec<String> {
    let mut ends = log.lines_with("Call ended");
    ends.extend(log.lines_with("Call failed"));
    ends.retain(|line| line.contains(&format!("rpc.method=\"{method}\"")));
    ends
}

#[tokio::test]
async fn a_call_is_logged_once_at_its_end_without_its_secrets() {
    let (log, logging) = Log::begin();
    let plugin = Plugin::start(true, LONG).await;
    let mut controller = ControllerClient::new(plugin.channel.clone());
    let secret = || [("password".to_owned(), "canary".to_owned())].into();
    let request = || v1::DeleteVolumeRequest {
        volume_id: "v".to_owned(),
        secrets: secret(),
    };
    controller.delete_volume(request()).await.unwrap();
    plugin
        .served
        .recorder
        .behave(Behaviour::Fail(Status::not_found("no such volume")));
    controller.delete_volume(request()).await.unwrap_err();
    plugin.served.stop().await;
    drop(logging);

    let ends = ends_of(&log, "/csi.v1.Controller/DeleteVolume");
    assert_eq!(ends.len(), 2, "{ends:?}");
    assert!(
        ends[0].contains("INFO") && ends[0].contains("rpc.code=\"OK\""),
        "{ends:?}"
    );
    assert!(
        ends[1].contains("WARN") && ends[1].contains("rpc.code=\"NOT_FOUND\""),
        "{ends:?}"
    );
    assert!(ends[1].contains("no such volume"), "{ends:?}");
    assert!(
        ends.iter().all(|line| line.contains("rpc.duration_ms=")),
        "{ends:?}"
    );
    assert_eq!(log.lines_with("canary"), [""; 0]);
}

#[tokio::test]
async fn a_client_that_leaves_is_no_error() {
    let (log, logging) = Log::begin();
    let plugin = Plugin::start(true, LONG).await;
    let (permits, call) = plugin.begin_call().await;
    call.abort();
    crate::recorder::wait_until(|| !ends_of(&log, "/csi.v1.Identity/Probe").is_empty(), "the end").await;
    assert_eq!(
        Arc::strong_count(&permits),
        2,
        "the test has one and the behaviour one, but no handler"
    );
    drop(
        UnixStream::connect(plugin.directory.path().join("csi.sock"))
            .await
            .unwrap(),
    );
    plugin.served.stop().await;
    drop(logging);

    let ends = ends_of(&log, "/csi.v1.Identity/Probe");
    assert!(
        ends.len() == 1 && ends[0].contains("DEBUG") && ends[0].contains("rpc.code=\"CANCELLED\""),
        "{ends:?}"
    );
    assert_eq!(
        [log.lines_with(" WARN "), log.lines_with(" ERROR ")].concat(),
        [""; 0]
    );
}

#[tokio::test]
async fn a_panic_becomes_internal_and_harms_no_other_call() {
    let (log, logging) = Log::begin();
    let plugin = Plugin::start(true, LONG).await;
    let (permits, other) = plugin.begin_call().await;
    plugin.served.recorder.behave(Behaviour::Panic);
    let status = plugin.identity().probe(ProbeRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("bug"), "{}", status.message());
    permits.add_permits(1);
    other.await.unwrap().unwrap();
    plugin.served.stop().await;
    drop(logging);
    let failed = |line: &&String| line.contains("Call failed");
    let ends = ends_of(&log, "/csi.v1.Identity/Probe");
    assert_eq!(ends.iter().filter(failed).count(), 1, "{ends:?}");
}
