//! A proxy between Mesos and a plugin, which makes the plugin wrong or hides a version of CSI.

use host_fs::mount::testing::unmount;
use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use csi_proto::v1::{
    ListVolumesResponse, NodePublishVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    ValidateVolumeCapabilitiesResponse,
};
use flocker_csi::config::Endpoint;
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use prost::Message;
use prost::bytes::Bytes;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use tower::service_fn;

use super::types::Api;
use crate::support::machine::Machine;
use crate::support::verbatim::Verbatim;

/// The fault of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Nothing,
    /// `NodePublishVolume` is OK, but creates no target.
    MakesNoTarget,
    /// `NodePublishVolume` does not exist.
    KnowsNoPublish,
    /// `NodeUnpublishVolume` leaves the target.
    LeavesTheTarget,
    /// `NodeUnpublishVolume` removes the target, which is Mesos' own in `csi.v0`.
    RemovesTheTarget,
    /// `NodeUnstageVolume` also removes the staging directory.
    RemovesTheStagingDirectory,
    /// `NodeUnstageVolume` is OK, but the volume is still mounted.
    LeavesAMount,
    /// `ListVolumes` returns sizes that are a byte too small.
    TellsOtherSizes,
    /// `ListVolumes` returns every volume twice.
    ListsTwice,
    /// `ValidateVolumeCapabilities` confirms other capabilities than the requested ones.
    ConfirmsAnotherContext,
    ConfirmsAnotherCapability,
    ConfirmsOtherParameters,
    /// Published volumes are unmounted when the plugin stops.
    UnmountsAtExit,
}

/// A plugin that forwards calls to another one.
pub(crate) struct Proxy {
    pub(crate) endpoint: Endpoint,
    forward: Forward,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Serves one version of CSI before the plugin of a machine.
    pub(crate) fn start(machine: &Machine, api: Api, wrong: Wrong) -> Self {
        let socket = machine.path("proxy.sock");
        fs::remove_file(&socket).ok();
        let plugin = machine.config.plugin.endpoint.to_string();
        let plugin = tonic::transport::Endpoint::from_shared(plugin).unwrap();
        let forward = Forward {
            plugin: plugin.connect_lazy(),
            wrong,
            published: Arc::default(),
        };
        let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let mut server = Server::builder();
        let router = match api {
            Api::V0 => server
                .add_service(Identity0(forward.clone()))
                .add_service(Controller0(forward.clone()))
                .add_service(Node0(forward.clone())),
            Api::V1 => server
                .add_service(Identity1(forward.clone()))
                .add_service(Controller1(forward.clone()))
                .add_service(Node1(forward.clone())),
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = async {
            router
                .serve_with_incoming_shutdown(incoming, stopped)
                .await
                .unwrap();
        };
        Self {
            endpoint: Endpoint::Unix(socket),
            forward,
            stop,
            serving: tokio::spawn(serving),
        }
    }

    /// Ends as a plugin does that gets a signal.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
        if self.forward.wrong == Wrong::UnmountsAtExit {
            for target in self.forward.published.lock().unwrap().drain(..) {
                unmount(&target);
            }
        }
    }
}

#[derive(Clone)]
struct Forward {
    plugin: Channel,
    wrong: Wrong,
    published: Arc<Mutex<Vec<PathBuf>>>,
}

impl Forward {
    async fn serve(self, request: http::Request<Body>) -> http::Response<Body> {
        let path: PathAndQuery = request.uri().path().parse().unwrap();
        let answer = service_fn(move |request| self.clone().answer(path.clone(), request));
        tonic::server::Grpc::new(Verbatim).unary(answer, request).await
    }

    async fn answer(self, path: PathAndQuery, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        let method = path.path().rsplit('/').next().unwrap().to_owned();
        match (self.wrong, &*method) {
            (Wrong::MakesNoTarget, "NodePublishVolume") | (Wrong::LeavesAMount, "NodeUnstageVolume") => {
                return Ok(Response::new(Bytes::new()));
            }
            (Wrong::KnowsNoPublish, "NodePublishVolume") => return Err(Status::unimplemented("")),
            _ => {}
        }
        let asked = request.get_ref().clone();
        let mut plugin = tonic::client::Grpc::new(self.plugin.clone());
        plugin
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let answer = plugin.unary(request, path, Verbatim).await?;
        Ok(answer.map(|answer| self.change(&method, &asked, answer)))
    }

    /// Makes an answer, or its effect, wrong. The fields used have the same numbers in both versions.
    fn change(&self, method: &str, asked: &Bytes, answer: Bytes) -> Bytes {
        match (self.wrong, method) {
            (Wrong::LeavesTheTarget, "NodeUnpublishVolume") => {
                fs::create_dir(read::<NodeUnpublishVolumeRequest>(asked).target_path).unwrap();
            }
            (Wrong::RemovesTheTarget, "NodeUnpublishVolume") => {
                fs::remove_dir(read::<NodeUnpublishVolumeRequest>(asked).target_path).unwrap();
            }
            (Wrong::RemovesTheStagingDirectory, "NodeUnstageVolume") => {
                fs::remove_dir(read::<NodeUnstageVolumeRequest>(asked).staging_target_path).unwrap();
            }
            (Wrong::UnmountsAtExit, "NodePublishVolume") => {
                let target = read::<NodePublishVolumeRequest>(asked).target_path;
                self.published.lock().unwrap().push(target.into());
            }
            (Wrong::TellsOtherSizes | Wrong::ListsTwice, "ListVolumes") => {
                let mut list = read::<ListVolumesResponse>(&answer);
                if self.wrong == Wrong::ListsTwice {
                    list.entries.extend(list.entries.clone());
                } else {
                    let volumes = list.entries.iter_mut().filter_map(|entry| entry.volume.as_mut());
                    volumes.for_each(|volume| volume.capacity_bytes -= 1);
                }
                return list.encode_to_vec().into();
            }
            (
                Wrong::ConfirmsAnotherContext
                | Wrong::ConfirmsAnotherCapability
                | Wrong::ConfirmsOtherParameters,
                "ValidateVolumeCapabilities",
            ) => {
                let mut validated = read::<ValidateVolumeCapabilitiesResponse>(&answer);
                let confirmed = validated.confirmed.as_mut().expect("it is confirmed");
                let more = || ("more".to_owned(), "than was asked for".to_owned());
                match self.wrong {
                    Wrong::ConfirmsAnotherContext => confirmed.volume_context.extend([more()]),
                    Wrong::ConfirmsOtherParameters => confirmed.parameters.extend([more()]),
                    _ => confirmed.volume_capabilities[0].access_mode = None,
                }
                return validated.encode_to_vec().into();
            }
            _ => {}
        }
        answer
    }
}

fn read<M: Message + Default>(bytes: &Bytes) -> M {
    M::decode(bytes.clone()).unwrap()
}

/// Makes a service of that name, which forwards everything.
macro_rules! service {
    ($service:ident, $name:literal) => {
        #[derive(Clone)]
        struct $service(Forward);

        impl NamedService for $service {
            const NAME: &'static str = $name;
        }

        impl tower::Service<http::Request<Body>> for $service {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

            fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Self::Future {
                let forward = self.0.clone();
                Box::pin(async { Ok(forward.serve(request).await) })
            }
        }
    };
}

service!(Identity0, "csi.v0.Identity");
service!(Controller0, "csi.v0.Controller");
service!(Node0, "csi.v0.Node");
service!(Identity1, "csi.v1.Identity");
service!(Controller1, "csi.v1.Controller");
service!(Node1, "csi.v1.Node");
