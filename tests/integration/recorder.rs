//! Services that only record their requests, for tests of everything in front of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use csi_proto::v1;
use flocker_csi::commands::serve::services::Services;
use flocker_csi::config::Endpoint;
use flocker_csi::server::{Health, Limits, Listener, ServeError, ServingNode};
use prost::Message;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};

use flocker_csi::telemetry::Metrics;

use crate::log;

/// The longest wait for an event that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A call as a service got it: the RPC's path, and the message as this library encodes it.
pub(crate) type ReceivedCall = (String, Vec<u8>);

/// What the services do after they have recorded a call.
#[derive(Clone, Debug, Default)]
pub(crate) enum Behaviour {
    #[default]
    Answer,
    /// Wait for a permit.
    Wait(Arc<Semaphore>),
    Panic,
    Fail(Status),
}

/// All three services; clones share their memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    calls: Arc<Mutex<Vec<ReceivedCall>>>,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Recorder {
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    /// Returns the number of calls so far.
    pub(crate) fn count(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    /// Waits for the given number of calls, and removes and returns them.
    pub(crate) async fn take(&self, count: usize) -> Vec<ReceivedCall> {
        wait_until(|| self.count() >= count, &format!("{count} calls")).await;
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    async fn record<T: Default>(&self, path: String, message: impl Message) -> Result<Response<T>, Status> {
        self.calls.lock().unwrap().push((path, message.encode_to_vec()));
        let behaviour = self.behaviour.lock().unwrap().clone();
        match behaviour {
            Behaviour::Answer => {}
            Behaviour::Wait(permits) => drop(permits.acquire().await),
            Behaviour::Panic => panic!("as the test wants it"),
            Behaviour::Fail(status) => return Err(status),
        }
        Ok(Response::new(T::default()))
    }
}

/// Implements a service whose every method records itself; a request is named for its RPC.
///
/// The function with the service's name encodes one of its messages again, as encoders differ in the order of
/// fields, or returns `None` if the path is of another service.
macro_rules! records {
    ($service:ident of $module:ident, $name:ident:
     $($method:ident($request:ident) -> $response:ident,)*) => {
        #[async_trait]
        impl v1::$module::$service for Recorder {
            $(async fn $method(
                &self,
                request: Request<v1::$request>,
            ) -> Result<Response<v1::$response>, Status> {
                self.record(path(stringify!($service), stringify!($request)), request.into_inner()).await
            })*
        }

        fn $name(of: &str, message: &[u8]) -> Option<Vec<u8>> {
            $(if of == path(stringify!($service), stringify!($request)) {
                return Some(v1::$request::decode(message).unwrap().encode_to_vec());
            })*
            None
        }
    };
}

fn path(service: &str, request: &str) -> String {
    format!("/csi.v1.{service}/{}", request.trim_end_matches("Request"))
}

/// Returns the call that is recorded when `message`, however its fields are ordered, is sent to the RPC at
/// `path`.
pub(crate) fn call(path: &str, message: &[u8]) -> ReceivedCall {
    let encoded = identity(path, message)
        .or_else(|| controller(path, message))
        .or_else(|| node(path, message));
    (
        path.to_owned(),
        encoded.unwrap_or_else(|| panic!("RPC {path} does not exist")),
    )
}

records! { Identity of identity_server, identity:
    get_plugin_info(GetPluginInfoRequest) -> GetPluginInfoResponse,
    get_plugin_capabilities(GetPluginCapabilitiesRequest) -> GetPluginCapabilitiesResponse,
    probe(ProbeRequest) -> ProbeResponse,
}

records! { Controller of controller_server, controller:
    create_volume(CreateVolumeRequest) -> CreateVolumeResponse,
    delete_volume(DeleteVolumeRequest) -> DeleteVolumeResponse,
    controller_publish_volume(ControllerPublishVolumeRequest) -> ControllerPublishVolumeResponse,
    controller_unpublish_volume(ControllerUnpublishVolumeRequest) -> ControllerUnpublishVolumeResponse,
    validate_volume_capabilities(ValidateVolumeCapabilitiesRequest) -> ValidateVolumeCapabilitiesResponse,
    list_volumes(ListVolumesRequest) -> ListVolumesResponse,
    get_capacity(GetCapacityRequest) -> GetCapacityResponse,
    controller_get_capabilities(ControllerGetCapabilitiesRequest) -> ControllerGetCapabilitiesResponse,
    create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse,
    delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse,
    list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse,
    get_snapshot(GetSnapshotRequest) -> GetSnapshotResponse,
    controller_expand_volume(ControllerExpandVolumeRequest) -> ControllerExpandVolumeResponse,
    controller_get_volume(ControllerGetVolumeRequest) -> ControllerGetVolumeResponse,
    controller_modify_volume(ControllerModifyVolumeRequest) -> ControllerModifyVolumeResponse,
}

records! { Node of node_server, node:
    node_stage_volume(NodeStageVolumeRequest) -> NodeStageVolumeResponse,
    node_unstage_volume(NodeUnstageVolumeRequest) -> NodeUnstageVolumeResponse,
    node_publish_volume(NodePublishVolumeRequest) -> NodePublishVolumeResponse,
    node_unpublish_volume(NodeUnpublishVolumeRequest) -> NodeUnpublishVolumeResponse,
    node_get_volume_stats(NodeGetVolumeStatsRequest) -> NodeGetVolumeStatsResponse,
    node_expand_volume(NodeExpandVolumeRequest) -> NodeExpandVolumeResponse,
    node_get_capabilities(NodeGetCapabilitiesRequest) -> NodeGetCapabilitiesResponse,
    node_get_info(NodeGetInfoRequest) -> NodeGetInfoResponse,
}

/// A server in front of a [`Recorder`].
pub(crate) struct Served {
    pub(crate) endpoint: Endpoint,
    pub(crate) recorder: Recorder,
    pub(crate) health: Health,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), ServeError>>,
}

impl Served {
    /// Serves all three services, or not Node, on `endpoint`.
    pub(crate) async fn start(endpoint: &Endpoint, node: bool, grace: Duration) -> Self {
        log::install();
        let listener = Listener::bind(endpoint).await.unwrap();
        let endpoint = listener.endpoint().clone();
        let recorder = Recorder::default();
        let services = Services {
            identity: recorder.clone(),
            controller: Some(recorder.clone()),
            node: node.then(|| recorder.clone()),
            metrics: Metrics::default(),
            serving_node: ServingNode {
                id: Arc::new(|| None),
                host: "host".into(),
            },
        };
        let health = services.health().await;
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(services.serve(
            listener,
            Limits::default(),
            health.clone(),
            shutdown.clone(),
            grace,
        ));
        Self {
            endpoint,
            recorder,
            health,
            shutdown,
            task,
        }
    }

    /// Asks the server to stop and waits until it has.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the server stops")
            .unwrap()
            .unwrap();
    }
}

/// Waits until `condition` holds, which is often the case once the other tasks have had a turn.
pub(crate) async fn wait_until(condition: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    for turn in 0.. {
        if condition() {
            return;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        if turn < 1_000 {
            yield_now().await;
        } else {
            sleep(Duration::from_millis(1)).await;
        }
    }
}
