//! `flocker-csi serve`: the plugin, put together.

mod checks;
pub mod kubelet;
pub mod monitoring;
mod parts;
pub mod services;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::commands::failure::Failure;
use crate::commands::signals::StopSignals;
use crate::commands::stdout::announce;
use crate::config::Config;
use crate::config::Endpoint;
use crate::controller::ControllerService;
use crate::csi::identity::IdentityService;
use crate::flocker::cluster::{Cluster, Flocker, Lists};
use crate::flocker::node_identity::NodeIdentity;
use crate::host::mount::MountVisibility;
use crate::host::state_dir;
use crate::node::NodeService;
use crate::operation::Locks;
use crate::server::{Health, Listener, ServeError};
pub use checks::check;
use checks::check_all;
use host_fs::mount::{Mount, MountTable};
use kubelet::{Registrar, RegistrationService};
use monitoring::{Monitor, Readiness};
use parts::{controller, node, of_one_node, provisioner, sources, this_node};
use services::{Part, Services};

/// How long calls that have begun may take to end when the plugin stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a stop may take in all.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How often the health of Flocker is passed on to the health service. Flocker is not asked for it.
const HEALTH_EVERY: Duration = Duration::from_secs(5);

/// Runs the plugin until SIGTERM or SIGINT.
///
/// # Errors
/// The configuration is wrong, the endpoint cannot be listened on, the server fails, or the stop takes too long.
pub async fn run(config: Config) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let mut plugin = Plugin::start(config).await?;
    announce(format_args!("serving on {}", plugin.endpoint()));
    tokio::select! {
        signal = signals.next() => tracing::info!("Stopping, because of {signal}"),
        failure = plugin.failed() => return Err(failure),
    }
    plugin.stop().await
}

/// A running plugin.
///
/// Dropping it ends it as a crash would; [`Self::stop`] ends it in good order. Either way nothing is unmounted.
pub struct Plugin {
    endpoint: Endpoint,
    serving: JoinHandle<Result<(), ServeError>>,
    registering: Option<JoinHandle<()>>,
    monitoring: Option<(SocketAddr, JoinHandle<()>)>,
    shutdown: CancellationToken,
    controller: Option<ControllerService>,
    node: Option<NodeService>,
}

impl Plugin {
    /// Starts the plugin; it serves when this returns.
    ///
    /// # Errors
    /// [`Failure::Configuration`] when a file is not what it should be or the address for probes is taken,
    /// [`Failure::Failed`] when the endpoint, or the socket for the kubelet, cannot be listened on.
    pub async fn start(config: Config) -> Result<Self, Failure> {
        let credentials = check_all(&config).await?;
        let registration = kubelet::Settings::of(&config).map_err(Failure::configuration)?;
        let registration = registration.map(RegistrationService::new);
        let monitor = match config.plugin.metrics_address {
            Some(address) => Some(Monitor::bind(address).await?),
            None => None,
        };
        let listener = Listener::bind(&config.plugin.endpoint)
            .await
            .map_err(|error| Failure::of(&error))?;
        let flocker = config.flocker.client(credentials);
        state_dir::tidy(config.node.state_dir.clone()).await;
        let cluster = Cluster::new(Flocker::new(flocker), config.node_loss.takeover_grace);
        let shutdown = CancellationToken::new();
        let readiness = Readiness::new(shutdown.clone(), registration.clone(), cluster.clone());
        // From now on, as taking up what is staged may take a while, and is no reason to start anew.
        let monitoring =
            monitor.map(|monitor| (monitor.address(), tokio::spawn(monitor.run(readiness.clone()))));
        let identity = NodeIdentity::new(sources(&config), cluster.clone());
        let this_node = this_node(&identity);
        // One set for both: what the controller attaches, the node may be about to release.
        let locks = Locks::default();
        let provisioner = provisioner(&config, &cluster, &this_node, &locks);
        let node = config
            .mode
            .serves_node()
            .then(|| node(&config, &cluster, &this_node, &locks, &provisioner));
        let controller = config
            .mode
            .serves_controller()
            .then(|| controller(&config, &cluster, locks, provisioner, node.as_ref()));
        if let Some(node) = &node {
            warn_if_hidden().await;
            // Whatever is staged is pinned again before anybody can ask for anything.
            node.restore().await;
        }
        let services = Services {
            identity: IdentityService::new(config.plugin.driver_name.clone()),
            controller: controller.clone(),
            node: node.clone(),
        };
        let health = services.health().await;
        let endpoint = listener.endpoint().clone();
        tokio::spawn(
            shutdown
                .clone()
                .run_until_cancelled_owned(pass_health_on(cluster.clone(), health.clone())),
        );
        tokio::spawn(
            shutdown
                .clone()
                .run_until_cancelled_owned(cluster.certificate_keeper().run()),
        );
        let serving = tokio::spawn(services.serve(listener, health, shutdown.clone(), DRAIN));
        readiness.serves();
        let first_look = first_look(
            cluster,
            (node.is_some() || of_one_node(&config)).then_some(identity),
        );
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(first_look));
        let mut plugin = Self {
            endpoint,
            serving,
            registering: None,
            monitoring,
            shutdown,
            controller,
            node,
        };
        if let Some(registration) = registration {
            // The kubelet may call at once, and then it calls the plugin.
            let registrar = Registrar::bind(registration)
                .await
                .map_err(|error| Failure::while_doing("show the plugin to the kubelet", &error))?;
            plugin.registering = Some(tokio::spawn(registrar.run(plugin.shutdown.clone())));
        }
        Ok(plugin)
    }

    /// Returns where the plugin serves.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns where probes are answered.
    pub fn monitor_address(&self) -> Option<SocketAddr> {
        self.monitoring.as_ref().map(|(address, _)| *address)
    }

    /// Waits until the server fails, which it need never do.
    pub async fn failed(&mut self) -> Failure {
        match (&mut self.serving).await {
            Ok(Ok(())) => Failure::Failed("the gRPC server ended without having been asked to".to_owned()),
            Ok(Err(error)) => Failure::of(&error),
            Err(error) => Failure::while_doing("go on serving", &error),
        }
    }

    /// Stops in good order: no new calls, a while for those that have begun, then the rest is told to stop.
    ///
    /// Volumes stay staged and published.
    ///
    /// # Errors
    /// The server failed, or something did not stop within ten seconds.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.shutdown.cancel();
        let stop = async {
            let served = (&mut self.serving).await;
            // At the same time, so that a mount is waited for whatever the controller hangs in.
            let controller = async {
                if let Some(controller) = &self.controller {
                    controller.stop().await;
                }
            };
            let node = async {
                if let Some(node) = &self.node {
                    node.stop().await;
                }
            };
            let registering = async {
                if let Some(registering) = &mut self.registering {
                    registering.await.ok();
                }
            };
            tokio::join!(controller, node, registering);
            match served {
                Ok(served) => served.map_err(|error| Failure::of(&error)),
                Err(error) => Err(Failure::while_doing("stop serving", &error)),
            }
        };
        tokio::time::timeout(STOP_WITHIN, stop)
            .await
            .unwrap_or_else(|_elapsed| {
                Err(Failure::Failed(format!(
                    "could not stop in good order within {STOP_WITHIN:?}"
                )))
            })
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.serving.abort();
        for task in self
            .registering
            .iter()
            .chain(self.monitoring.iter().map(|(_, task)| task))
        {
            task.abort();
        }
    }
}

/// Warns when nothing that is mounted here can be seen by anybody else, as every target would then be refused.
async fn warn_if_hidden() {
    let hidden = tokio::task::spawn_blocking(|| {
        let shared = |table: MountTable| table.mounts().iter().any(Mount::shared);
        MountVisibility::of_this_process() == MountVisibility::Apart && !MountTable::read().is_ok_and(shared)
    });
    if hidden.await.unwrap_or(false) {
        tracing::warn!(
            "No mount here is shared with the host, so no volume can be published: give the plugin the directory of \
             the targets with bidirectional mount propagation"
        );
    }
}

/// Tells early, in the log, whether Flocker can be reached and which node this is.
async fn first_look(cluster: Cluster, identity: Option<NodeIdentity>) {
    let named = async {
        match identity {
            Some(identity) => identity.resolve().await.map(drop),
            None => Ok(()),
        }
    };
    // At the same time: who this node is may take long to find out, and readiness waits for the first answer.
    let (named, seen) = tokio::join!(named, cluster.fresh(Lists::NODES));
    if let Err(error) = named.and(seen) {
        tracing::warn!(error = %error.chain(), "Flocker cannot be used yet; calls that need it will try again");
    }
}

/// Keeps the health service up to date with how Flocker last answered.
///
/// The plugin as a whole stays healthy: restarting it does not bring Flocker back.
async fn pass_health_on(cluster: Cluster, health: Health) {
    let mut ticks = tokio::time::interval(HEALTH_EVERY);
    let mut told = true;
    loop {
        ticks.tick().await;
        if !told {
            // Nobody asks a Flocker that is down for long, and then nobody would learn that it is back.
            cluster.fresh(Lists::NODES).await.ok();
        }
        let healthy = cluster.is_healthy().unwrap_or(true);
        if healthy != told {
            health.set(Part::Controller.names(), healthy).await;
            health.set(Part::Node.names(), healthy).await;
            told = healthy;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::commands::cli::{Cli, Command};

    fn config(flags: &[&str]) -> Config {
        let arguments: Vec<_> = ["flocker-csi", "serve", "--control-service=https://10.0.0.1"]
            .iter()
            .chain(flags)
            .map(OsString::from)
            .collect();
        match Cli::read(&arguments, &std::collections::BTreeMap::new())
            .unwrap()
            .0
            .command
        {
            Command::Serve(args) => args.config,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn every_file_that_is_not_what_it_should_be_is_told_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(file("node-id"), "no uuid").unwrap();
        let config = config(&[
            &format!("--cluster-cert={}", file("cluster.crt")),
            &format!("--node-id-file={}", file("node-id")),
        ]);
        match check(&config).await {
            Err(Failure::Configuration(lines)) => {
                assert!(lines[0].contains(&file("cluster.crt")), "{lines:?}");
                assert!(lines[1].contains(&file("node-id")), "{lines:?}");
                assert_eq!(lines.len(), 2);
            }
            other => panic!("{:?}", other.err()),
        }
    }

    #[tokio::test]
    async fn a_plugin_with_a_wrong_configuration_never_listens() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("csi.sock");
        let config = config(&[
            &format!("--endpoint={}", socket.display()),
            &format!(
                "--cluster-cert={}",
                directory.path().join("cluster.crt").display()
            ),
        ]);
        assert!(matches!(
            Plugin::start(config).await,
            Err(Failure::Configuration(_))
        ));
        assert!(!socket.exists());
    }
}
