//! `flocker-csi serve`: assembles the plugin and runs it.

pub(crate) mod checks;
pub(crate) mod kubelet;
pub(crate) mod monitoring;
pub(crate) mod parts;
pub mod services;
mod start_log;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::commands::failure::Failure;
use crate::commands::http::Monitor;
use crate::commands::memory;
use crate::commands::signals::StopSignals;
use crate::commands::stdout::{self, announce};
use crate::commands::storage_metrics::StorageMetrics;
use crate::config::Config;
use crate::config::Endpoint;
use crate::controller::{ControllerService, WATCH_EVERY};
use crate::csi::identity::IdentityService;
use crate::flocker::cluster::{Cluster, Flocker};
use crate::flocker::node_identity::NodeIdentity;
use crate::host::{PinStore, preconditions, state_dir};
use crate::node::NodeService;
use crate::operation::Locks;
use crate::server::{Listener, ServeError, SocketState};
use crate::telemetry::{Metrics, TraceExport, spawn_blocking};
use checks::{check_all, warn_of_exposed_directories, warn_of_takeover};
use kubelet::{Registrar, RegistrationService};
use monitoring::{Gauges, Monitored, Readiness, Sources};
use parts::{
    controller, host_settings, limits, node, of_one_node, provisioner, serving_node, sources, this_node,
    traces,
};
use services::Services;
use start_log::log_start;

/// How long calls that have begun may take to end when the plugin stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a stop may take in total.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Runs the plugin until SIGTERM, SIGINT or SIGHUP, which end a start too that is not complete, whatever that waits for.
///
/// # Errors
/// The configuration is wrong, the plugin cannot listen on the endpoint, the server fails, or the stop takes too long.
pub async fn run(config: Config) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let start = async {
        warn_if_cut_off(&config).await;
        Plugin::start_with(config, PinStore::of_this_process(), None).await
    };
    let Ok(started) = signals.unless_stopped(start).await else {
        return Ok(());
    };
    let mut plugin = started?;
    announce(format_args!("serving on {}", plugin.endpoint().absolute()));
    tokio::select! {
        signal = signals.next() => tracing::info!("Stopping on {signal}"),
        failure = plugin.wait_for_failure() => return Err(failure),
    }
    plugin.stop().await
}

/// A running plugin.
///
/// Dropping it ends it as a crash would; [`Self::stop`] ends it gracefully. Neither unmounts anything.
pub struct Plugin {
    endpoint: Endpoint,
    serving: JoinHandle<Result<(), ServeError>>,
    registering: Option<JoinHandle<()>>,
    monitoring: Option<JoinHandle<()>>,
    traces: Option<TraceExport>,
    shutdown: CancellationToken,
    controller: Option<ControllerService>,
    node: Option<NodeService>,
}

impl Plugin {
    /// Starts the plugin; it serves when this returns.
    ///
    /// # Errors
    /// [`Failure::Configuration`] when a file is invalid or the address for probes is in use, [`Failure::Failed`] when the
    /// plugin cannot listen on the endpoint or on the registration socket.
    pub async fn start(config: Config) -> Result<Self, Failure> {
        Self::start_with(config, PinStore::default(), None).await
    }

    /// As [`Self::start`], with the metrics of the Flocker in the same process.
    pub(crate) async fn start_with_storage(config: Config, storage: StorageMetrics) -> Result<Self, Failure> {
        Self::start_with(config, PinStore::default(), Some(storage)).await
    }

    /// As [`Self::start`], with the pins that a service manager has kept since an earlier process.
    async fn start_with(
        config: Config,
        pin_store: PinStore,
        storage: Option<StorageMetrics>,
    ) -> Result<Self, Failure> {
        let credentials = check_all(&config).await?;
        log_start(&config, &credentials);
        let registration = kubelet::RegistrationSettings::of(&config).map_err(Failure::configuration)?;
        let registration = registration.map(RegistrationService::new);
        let monitor = match config.plugin.metrics_address {
            Some(address) => Some(Monitor::bind(address).await?),
            None => None,
        };
        let socket = SocketState::default();
        let listener = listen(&config.plugin.endpoint).await?.kept(socket.clone());
        let flocker = config.flocker.client(credentials);
        warn_of_exposed_directories(&config).await;
        warn_of_takeover(&config);
        state_dir::tidy(config.node.state_dir.clone()).await;
        let cluster = Cluster::new(Flocker::new(flocker), config.node_loss.takeover_grace);
        stdout::count_losses_in(cluster.counters());
        let tasks = cluster.tasks().clone();
        let shutdown = tasks.stop().clone();
        let report = (cluster.counters().clone(), shutdown.clone());
        tasks.spawn_to_end("logging counters", move || {
            report.0.clone().report(report.1.clone())
        });
        tasks.spawn("returning unused memory", memory::return_unused);
        let traces = traces(&config, &cluster).await?;
        let identity = NodeIdentity::new(sources(&config), cluster.clone());
        let is_of_one_node = config.mode.serves_node() || of_one_node(&config);
        let readiness = Readiness::new(
            &config,
            Sources {
                shutdown: shutdown.clone(),
                registration: registration.clone(),
                cluster: cluster.clone(),
                identity: is_of_one_node.then(|| identity.clone()),
                socket,
            },
        );
        let monitored = Monitored::new(readiness.clone(), cluster.metrics().clone(), storage);
        // Before staged volumes are restored, which may take a while and must not fail a liveness probe.
        let monitoring = monitor.map(|monitor| {
            let (monitor, monitored) = (Arc::new(monitor), monitored.clone());
            let answer = move || Arc::clone(&monitor).run(monitored.clone());
            // Without the token: it answers that the plugin stops.
            tasks.spawn_to_end("answering probes", answer)
        });
        let this_node = this_node(&identity);
        // Shared by both services: the node may be releasing the volume that the controller attaches.
        let locks = Locks::default();
        let provisioner = provisioner(&config, &cluster, &this_node, &locks);
        let node = config
            .mode
            .serves_node()
            .then(|| node(&config, &cluster, &this_node, &locks, &provisioner, pin_store));
        let controller = config
            .mode
            .serves_controller()
            .then(|| controller(&config, &cluster, locks, provisioner, node.as_ref()));
        if let Some(node) = &node {
            warn_of_hidden_mounts(&config).await;
            // Staged volumes are pinned again before the first call.
            node.restore().await;
        }
        let services = Services {
            identity: IdentityService::new(config.plugin.driver_name.clone(), config.plugin.topology),
            controller: controller.clone(),
            node: node.clone(),
            metrics: cluster.metrics().clone(),
            serving_node: serving_node(&identity),
        };
        let health = services.health().await;
        let endpoint = listener.endpoint().clone();
        readiness.watch_in(&tasks, &health);
        start_watches(&cluster, controller.clone());
        let serving =
            tokio::spawn(services.serve(listener, limits(&config), health, shutdown.clone(), DRAIN));
        monitored.serves(Gauges {
            cluster: cluster.clone(),
            controller: controller.clone(),
            node: node.clone(),
            readiness: readiness.clone(),
        });
        readiness.keep_asking_in(&tasks);
        let mut plugin = Self {
            endpoint,
            serving,
            registering: None,
            monitoring,
            traces,
            shutdown,
            controller,
            node,
        };
        if let Some(registration) = registration {
            // Last, as the kubelet may call at once, and then calls the plugin.
            let registrar = Registrar::bind(registration)
                .await
                .map_err(|error| Failure::context("register the plugin with the kubelet", &error))?;
            let (registrar, shutdown) = (Arc::new(registrar), plugin.shutdown.clone());
            let register = move || Arc::clone(&registrar).run(shutdown.clone());
            plugin.registering = Some(tasks.spawn_to_end("registering with the kubelet", register));
        }
        Ok(plugin)
    }

    /// Returns the endpoint on which the plugin serves.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Waits until the server fails.
    pub(crate) async fn wait_for_failure(&mut self) -> Failure {
        match (&mut self.serving).await {
            Ok(Ok(())) => Failure::Failed("the gRPC server ended without a stop".to_owned()),
            Ok(Err(error)) => Failure::of(&error),
            Err(error) => Failure::context("continue to serve", &error),
        }
    }

    /// Stops gracefully: it accepts no new calls, waits a few seconds for those that have begun, then cancels the rest.
    ///
    /// Volumes stay staged and published.
    ///
    /// # Errors
    /// The server failed, or something did not stop within ten seconds.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.shutdown.cancel();
        let stop = async {
            let served = (&mut self.serving).await;
            // Concurrently, so that a mount is waited for even if the controller hangs.
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
            // After the last call, whose span it has to send.
            if let Some(traces) = self.traces.take() {
                traces.finish().await;
            }
            match served {
                Ok(served) => served.map_err(|error| Failure::of(&error)),
                Err(error) => Err(Failure::context("stop serving", &error)),
            }
        };
        tokio::time::timeout(STOP_WITHIN, stop)
            .await
            .unwrap_or_else(|_elapsed| {
                Err(Failure::Failed(format!(
                    "cannot stop gracefully within {STOP_WITHIN:?}"
                )))
            })
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.serving.abort();
        for task in self.registering.iter().chain(&self.monitoring) {
            task.abort();
        }
    }
}

/// Starts what looks at certificates and volumes while no call comes.
fn start_watches(cluster: &Cluster, controller: Option<ControllerService>) {
    let tasks = cluster.tasks();
    let keeper = cluster.clone();
    tasks.spawn("loading new certificates", move || {
        keeper.certificate_keeper().run()
    });
    if let Some(controller) = controller {
        tasks.spawn("watching the conditions of volumes", move || {
            controller.clone().watch_conditions(WATCH_EVERY)
        });
    }
}

/// Listens on the endpoint of CSI.
async fn listen(endpoint: &Endpoint) -> Result<Listener, Failure> {
    let listener = Listener::bind(endpoint)
        .await
        .map_err(|error| Failure::of(&error))?;
    if let Endpoint::Tcp(address) = listener.endpoint() {
        tracing::warn!(
            "The endpoint {address} authenticates no client (allow_unauthenticated_tcp): every user of this machine can \
             mount over any directory and delete any volume through it"
        );
    }
    Ok(listener)
}

/// Warns when no mount of this process is shared with the host, as the plugin then refuses every target.
async fn warn_of_hidden_mounts(config: &Config) {
    let settings = host_settings(config, &Metrics::default());
    let warning = spawn_blocking(move || settings.visibility().warning());
    if let Ok(Some(warning)) = warning.await {
        tracing::warn!("{warning}");
    }
}

/// Warns when what Flocker mounts from now on does not reach this process.
async fn warn_if_cut_off(config: &Config) {
    // In a pod, the plugin does not start then.
    if !config.mode.serves_node() || config.kubelet.kubelet_registration_dir.is_some() {
        return;
    }
    let settings = host_settings(config, &Metrics::default());
    let cut_off = spawn_blocking(move || preconditions::cut_off(&settings));
    if let Ok(Some(cut_off)) = cut_off.await {
        tracing::warn!(
            "No volume can be staged that Flocker mounts from now on: {cut_off}; run mount --make-rshared / on the host, and \
             start the plugin again"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::checks::check_files;
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
    async fn every_invalid_file_and_directory_is_reported_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(file("node-id"), "no uuid").unwrap();
        let config = config(&[
            &format!("--cluster-cert={}", file("cluster.crt")),
            &format!("--node-id-file={}", file("node-id")),
            &format!("--state-dir={}", file("both")),
            &format!("--device-dir={}", file("both")),
        ]);
        match check_files(&config).await {
            Err(Failure::Configuration(lines)) => {
                assert!(lines[0].contains(&file("cluster.crt")), "{lines:?}");
                assert!(lines[1].contains(&file("node-id")), "{lines:?}");
                assert!(
                    lines[2].contains(&file("both")) && lines[2].contains("device_dir"),
                    "{lines:?}"
                );
                assert_eq!(lines.len(), 3);
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
