//! `flocker-csi standalone`: the plugin and an embedded Flocker in one process, for a single machine.

use flocker_embedded::{Embedded, Options};

use crate::commands::cli::StandaloneArgs;
use crate::commands::embedded::{CERTIFICATES, start_failure};
use crate::commands::failure::Failure;
use crate::commands::serve::Plugin;
use crate::commands::signals::StopSignals;
use crate::commands::stdout::announce;
use crate::commands::storage_metrics::StorageMetrics;
use crate::config::{Config, FlockerConfig, KubeletConfig, Mode, NodeConfig, NodeLossConfig};
use crate::flocker::provisioning::Pool;

/// Runs both until SIGTERM, SIGINT or SIGHUP, which end a start too that is not complete.
///
/// Prints `serving on ENDPOINT` once the plugin serves.
///
/// # Errors
/// One of them cannot be started, fails, or cannot be stopped gracefully.
pub async fn run(args: StandaloneArgs) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let Some(mut standalone) = Standalone::start(args, &mut signals).await? else {
        return Ok(());
    };
    announce(format_args!(
        "serving on {}",
        standalone.plugin.endpoint().absolute()
    ));
    tokio::select! {
        signal = signals.next() => tracing::info!("Stopping on {signal}"),
        failure = standalone.plugin.wait_for_failure() => return Err(failure),
    }
    standalone.stop().await
}

/// A plugin and the embedded Flocker that it uses.
pub(crate) struct Standalone {
    plugin: Plugin,
    flocker: Embedded,
}

impl Standalone {
    /// Starts both; the plugin serves when this returns. Returns `None` when a signal came first: what was started is
    /// stopped again.
    ///
    /// # Errors
    /// One of them cannot be started; the other is stopped again.
    async fn start(args: StandaloneArgs, signals: &mut StopSignals) -> Result<Option<Self>, Failure> {
        let options = Options::new(&args.data_dir, args.data_dir.join(CERTIFICATES));
        let options = args.storage.apply(options);
        let Ok(started) = signals.unless_stopped(Embedded::start(options)).await else {
            return Ok(None);
        };
        let flocker = started.map_err(|error| start_failure(&error))?;
        let started = match config(args, &flocker) {
            Ok(config) => {
                let storage = StorageMetrics::of(&flocker);
                let start = Plugin::start_with_storage(config, storage);
                signals.unless_stopped(start).await
            }
            Err(failure) => Ok(Err(failure)),
        };
        let failed = match started {
            Ok(Ok(plugin)) => return Ok(Some(Self { plugin, flocker })),
            Ok(Err(failure)) => Err(failure),
            Err(_signal) => Ok(None),
        };
        if let Err(error) = flocker.stop().await {
            tracing::warn!(error = %crate::error::chain(&error), "Cannot stop the embedded Flocker");
        }
        failed
    }

    /// Stops both gracefully. Published volumes stay published.
    ///
    /// # Errors
    /// One of them cannot be stopped gracefully.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let plugin = self.plugin.stop().await;
        let flocker = self.flocker.stop().await;
        plugin.and(flocker.map_err(|error| Failure::context("stop the embedded Flocker", &error)))
    }
}

/// Returns the settings of a plugin that uses `flocker` and runs on its only node.
fn config(args: StandaloneArgs, flocker: &Embedded) -> Result<Config, Failure> {
    let Some(node) = flocker.nodes().first() else {
        return Err(Failure::Failed("the embedded Flocker has no node".to_owned()));
    };
    let state_dir = args.state_dir.unwrap_or_else(|| args.data_dir.join("state"));
    Ok(Config {
        mode: Mode::All,
        plugin: args.plugin,
        flocker: FlockerConfig::embedded(flocker.address(), flocker.certificates()),
        node_loss: NodeLossConfig::default(),
        node: NodeConfig::of(node.uuid, node.mount_root.clone(), state_dir),
        kubelet: KubeletConfig::default(),
        pools: vec![Pool {
            profile: None,
            capacity: flocker.capacity(),
            per_node: false,
        }],
        log: args.log,
    })
}
