//! Keeps the registration socket in the directory that the kubelet watches.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use csi_proto::registration::registration_server::RegistrationServer;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::service::{RegistrationService, Verdict};
use crate::config::Endpoint;
use crate::error;
use crate::server::{
    self, BindError, CHECK_SOCKET_EVERY, Limits, Listener, RpcLogLayer, ServeError, SocketName,
};

/// How long to wait for another attempt of a kubelet that has refused the plugin, before the socket is recreated.
///
/// A kubelet tries again by itself within two minutes, but old versions never do after `NodeGetInfo` has failed.
const RETRY_TIMEOUT: Duration = Duration::from_secs(180);

/// How long calls that have begun may take to end when the plugin stops: those of the kubelet take no time.
const DRAIN: Duration = Duration::from_secs(1);

/// One kubelet makes one connection for each attempt.
const LIMITS: Limits = Limits {
    connections: 16,
    calls: 16,
};

/// The registration socket; it is removed when this is dropped or its `run` is stopped.
pub(crate) struct Registrar {
    service: RegistrationService,
    /// The socket until it is served.
    listener: Mutex<Option<Listener>>,
}

impl Registrar {
    /// Creates the socket. The kubelet may call at once, so CSI has to be served already.
    ///
    /// The socket of a process that was killed is replaced.
    ///
    /// # Errors
    /// Another process listens on the socket, or the kernel refuses.
    pub(crate) async fn bind(service: RegistrationService) -> Result<Self, BindError> {
        let listener = Listener::bind(&service.settings().socket).await?;
        Ok(Self {
            service,
            listener: Mutex::new(Some(listener)),
        })
    }

    /// Answers the kubelet until `shutdown` is cancelled, and recreates the socket whenever it no longer exists.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let service = &self.service;
        let bound = self
            .listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut listener = match bound {
            Some(listener) => listener,
            // The one of an earlier run, which panicked.
            None => match shutdown
                .run_until_cancelled(recreate(&service.settings().socket))
                .await
            {
                Some(recreated) => recreated,
                None => return,
            },
        };
        loop {
            let name = listener.socket_name().cloned();
            tokio::select! {
                served = serve(listener, service.clone(), shutdown.clone()) => {
                    if let Err(error) = served {
                        tracing::error!("The server for the registration with the kubelet failed, and is started again: {}", error::chain(&error));
                    }
                }
                why = needs_new_socket(name, service) => tracing::warn!("{why}"),
            }
            service.await_again();
            let recreated = recreate(&service.settings().socket);
            match shutdown.run_until_cancelled(recreated).await {
                Some(recreated) => listener = recreated,
                None => return,
            }
        }
    }
}

/// Serves the registration on `listener` until `shutdown` is cancelled.
async fn serve(
    listener: Listener,
    service: RegistrationService,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let router =
        server::builder(LIMITS, RpcLogLayer::default()).add_service(RegistrationServer::new(service));
    server::serve(listener, router, LIMITS, std::future::ready(()), shutdown, DRAIN).await
}

/// Waits until the socket has to be recreated, and returns the reason.
async fn needs_new_socket(name: Option<SocketName>, service: &RegistrationService) -> String {
    let socket = &service.settings().socket;
    let mut ticks = interval(CHECK_SOCKET_EVERY);
    let mut refused_since = None;
    loop {
        ticks.tick().await;
        if name.as_ref().is_some_and(|name| !name.is_in_place()) {
            return format!(
                "Another process has removed {socket}; it is recreated, so that the kubelet finds the plugin"
            );
        }
        match service.verdict() {
            Verdict::Refused(_) => {
                let since = *refused_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= RETRY_TIMEOUT {
                    return format!(
                        "The kubelet has not tried again since it refused the plugin; {socket} is recreated, so that it does"
                    );
                }
            }
            Verdict::Awaited | Verdict::Registered => refused_since = None,
        }
    }
}

/// Recreates the socket once its directory exists. The kubelet creates that, and watches none that it has not created.
async fn recreate(socket: &Endpoint) -> Listener {
    let mut logged = String::new();
    loop {
        let directory_exists = match socket {
            Endpoint::Unix(path) => path.parent().is_some_and(std::path::Path::is_dir),
            Endpoint::Tcp(_) => true,
        };
        let problem = if directory_exists {
            match Listener::bind(socket).await {
                Ok(listener) => return listener,
                Err(error) => error::chain(&error),
            }
        } else {
            "its directory is missing".to_owned()
        };
        if problem != logged {
            tracing::error!("Cannot recreate {socket}, so the kubelet does not find the plugin: {problem}");
            logged = problem;
        }
        sleep(CHECK_SOCKET_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use csi_proto::registration::RegistrationStatus;
    use csi_proto::registration::registration_server::Registration;
    use tonic::Request;

    use super::super::RegistrationSettings;
    use super::*;

    async fn notify(service: &RegistrationService, plugin_registered: bool) {
        let status = RegistrationStatus {
            plugin_registered,
            error: "not now".to_owned(),
        };
        service
            .notify_registration_status(Request::new(status))
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_socket_is_recreated_for_a_kubelet_that_does_not_try_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f-reg.sock");
        let service = RegistrationService::new(RegistrationSettings {
            socket: Endpoint::Unix(path.clone()),
            driver_name: "f".to_owned(),
            endpoint: "/csi.sock".to_owned(),
        });
        let registrar = Registrar::bind(service.clone()).await.unwrap();
        // The kernel may reuse the number of an inode at once, but its change time differs.
        let identity = || {
            fs::symlink_metadata(&path)
                .map(|found| (found.ino(), found.ctime(), found.ctime_nsec()))
                .unwrap()
        };
        let first = identity();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(Arc::new(registrar).run(shutdown.clone()));

        notify(&service, true).await;
        sleep(3 * RETRY_TIMEOUT).await;
        assert_eq!(
            (service.verdict(), identity()),
            (Verdict::Registered, first),
            "a registered kubelet needs no new socket"
        );

        notify(&service, false).await;
        sleep(RETRY_TIMEOUT / 2).await;
        assert_eq!(service.verdict(), Verdict::Refused("not now".to_owned()));
        assert_eq!(identity(), first, "the kubelet tries again by itself");
        sleep(RETRY_TIMEOUT).await;
        assert_eq!(service.verdict(), Verdict::Awaited);
        assert_ne!(identity(), first);

        shutdown.cancel();
        running.await.unwrap();
        assert!(!path.exists());
    }
}
