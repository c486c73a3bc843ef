//! Keeps the socket at which the kubelet asks where it looks for it.

use std::time::Duration;

use csi_proto::registration::registration_server::RegistrationServer;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::service::{RegistrationService, Verdict};
use crate::config::Endpoint;
use crate::error;
use crate::server::{self, BindError, Listener, ServeError, SocketName};

/// How often it is looked whether the socket is in its place.
///
/// A look is one system call. Following the directory by inotify would need its parents too, for whoever takes the
/// directory away takes what follows it, and nobody waits for a socket that has just been removed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long a kubelet that has refused the plugin is given to come back before it is shown a new socket.
///
/// It comes back by itself, after two minutes at the latest, but older ones never did where `NodeGetInfo` had failed.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long calls that have begun may take to end when the plugin stops: the kubelet's are answered at once.
const DRAIN: Duration = Duration::from_secs(1);

/// The socket at which the kubelet asks; dropping it, or stopping what it runs, takes the socket away.
pub struct Registrar {
    service: RegistrationService,
    listener: Listener,
}

impl Registrar {
    /// Makes the socket, from which moment the kubelet may call: CSI has to be served already.
    ///
    /// A socket that a process has left without a stop is replaced.
    ///
    /// # Errors
    /// Another process answers on the socket, or the kernel refuses.
    pub async fn bind(service: RegistrationService) -> Result<Self, BindError> {
        let listener = Listener::bind(&service.settings().socket).await?;
        Ok(Self { service, listener })
    }

    /// Answers the kubelet until `shutdown` is cancelled, and makes the socket again whenever it has gone.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            service,
            mut listener,
        } = self;
        loop {
            let name = listener.socket_name().cloned();
            tokio::select! {
                served = serve(listener, service.clone(), shutdown.clone()) => {
                    if let Err(error) = served {
                        tracing::error!("The kubelet is not answered any more: {}", error::chain(&error));
                    }
                }
                why = to_be_made_again(name, &service) => tracing::warn!("{why}"),
            }
            service.await_again();
            let again = listen_again(&service.settings().socket);
            match shutdown.run_until_cancelled(again).await {
                Some(again) => listener = again,
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
    let router = server::builder().add_service(RegistrationServer::new(service));
    server::serve(listener, router, std::future::ready(()), shutdown, DRAIN).await
}

/// Waits until the socket has to be made again, and returns why.
async fn to_be_made_again(name: Option<SocketName>, service: &RegistrationService) -> String {
    let socket = &service.settings().socket;
    let mut ticks = interval(LOOK_EVERY);
    let mut refused_since = None;
    loop {
        ticks.tick().await;
        if name.as_ref().is_some_and(|name| !name.is_in_place()) {
            return format!(
                "Somebody has taken {socket} away; it is made again, so that the kubelet finds the plugin"
            );
        }
        match service.verdict() {
            Verdict::Refused(_) => {
                let since = *refused_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= PATIENCE {
                    return format!(
                        "The kubelet has not come back since it refused the plugin; {socket} is made again for it"
                    );
                }
            }
            Verdict::Awaited | Verdict::Registered => refused_since = None,
        }
    }
}

/// Listens once the directory is there: the kubelet makes it, and looks into none that others have made.
async fn listen_again(socket: &Endpoint) -> Listener {
    let mut told = String::new();
    loop {
        let is_there = match socket {
            Endpoint::Unix(path) => path.parent().is_some_and(std::path::Path::is_dir),
            Endpoint::Tcp(_) => true,
        };
        let problem = if is_there {
            match Listener::bind(socket).await {
                Ok(listener) => return listener,
                Err(error) => error::chain(&error),
            }
        } else {
            "its directory is missing".to_owned()
        };
        if problem != told {
            tracing::error!("Cannot make {socket} again, so the kubelet does not find the plugin: {problem}");
            told = problem;
        }
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use csi_proto::registration::RegistrationStatus;
    use csi_proto::registration::registration_server::Registration;
    use tonic::Request;

    use super::super::Settings;
    use super::*;

    async fn says(service: &RegistrationService, plugin_registered: bool) {
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
    async fn a_kubelet_that_does_not_come_back_is_shown_a_new_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f-reg.sock");
        let service = RegistrationService::new(Settings {
            socket: Endpoint::Unix(path.clone()),
            driver_name: "f".to_owned(),
            endpoint: "/csi.sock".to_owned(),
        });
        let registrar = Registrar::bind(service.clone()).await.unwrap();
        // The number of an inode is given anew at once, the time of its making is not.
        let made = || {
            fs::symlink_metadata(&path)
                .map(|found| (found.ino(), found.ctime(), found.ctime_nsec()))
                .unwrap()
        };
        let first = made();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(registrar.run(shutdown.clone()));

        says(&service, true).await;
        sleep(3 * PATIENCE).await;
        assert_eq!(
            (service.verdict(), made()),
            (Verdict::Registered, first),
            "there is no reason to"
        );

        says(&service, false).await;
        sleep(PATIENCE / 2).await;
        assert_eq!(service.verdict(), Verdict::Refused("not now".to_owned()));
        assert_eq!(made(), first, "it comes back by itself");
        sleep(PATIENCE).await;
        assert_eq!(service.verdict(), Verdict::Awaited);
        assert_ne!(made(), first);

        shutdown.cancel();
        running.await.unwrap();
        assert!(!path.exists());
    }
}
