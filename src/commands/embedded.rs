//! `flocker-csi embedded`: only the embedded Flocker.

use std::sync::Arc;

use flocker_embedded::faults::FaultPlan;
use flocker_embedded::{Embedded, Options};
use supervised_tasks::Supervisor;
use tokio_util::sync::CancellationToken;

use crate::commands::cli::{CertificateProfile, EmbeddedArgs, Pace};
use crate::commands::failure::Failure;
use crate::commands::http::Monitor;
use crate::commands::signals::StopSignals;
use crate::commands::stdout::announce;
use crate::commands::storage_metrics::StorageMetrics;

/// The default directory for the files of clients, in the data directory.
pub(crate) const CERTIFICATES: &str = "certificates";

/// Runs an embedded Flocker until SIGTERM, SIGINT or SIGHUP, which end a start too that is not complete.
///
/// Prints `listening on https://ADDRESS` once the API answers.
///
/// # Errors
/// It cannot be started with these arguments, or cannot be stopped gracefully.
pub async fn run(args: EmbeddedArgs) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let monitor = match args.metrics_address {
        Some(address) => Some(Arc::new(Monitor::bind(address).await?)),
        None => None,
    };
    let plan_file = args.faults.clone();
    let faults = match &plan_file {
        Some(path) => FaultPlan::read(path, args.nodes)
            .map_err(|error| Failure::configuration(crate::error::chain(&error)))?,
        None => FaultPlan::default(),
    };
    let options = Options {
        faults,
        ..options(args)
    };
    let Ok(started) = signals.unless_stopped(Embedded::start(options)).await else {
        return Ok(());
    };
    let flocker = started.map_err(|error| start_failure(&error))?;
    let tasks = Supervisor::new(CancellationToken::new(), || {});
    if let Some(path) = plan_file {
        let faults = flocker.faults().clone();
        tasks.spawn("following the plan of faults", move || {
            let (faults, path) = (faults.clone(), path.clone());
            async move { faults.follow(&path).await }
        });
    }
    if let Some(monitor) = monitor {
        let storage = StorageMetrics::of(&flocker);
        tasks.spawn("answering with metrics", move || {
            Arc::clone(&monitor).run(storage.clone())
        });
    }
    announce(format_args!("listening on https://{}", flocker.address()));
    let signal = signals.next().await;
    tasks.stop().cancel();
    tracing::info!("Stopping on {signal}");
    flocker
        .stop()
        .await
        .map_err(|error| Failure::context("stop the embedded Flocker", &error))
}

/// Returns why the embedded Flocker cannot be started: a configuration failure if its settings are the reason.
pub(crate) fn start_failure(error: &flocker_embedded::Error) -> Failure {
    match error {
        flocker_embedded::Error::Options(_) => Failure::configuration(crate::error::chain(error)),
        _ => Failure::of(error),
    }
}

fn options(args: EmbeddedArgs) -> Options {
    let eras = args.eras();
    let certificates = args
        .certificates
        .unwrap_or_else(|| args.data_dir.join(CERTIFICATES));
    let options = Options {
        listen: args.listen,
        nodes: args.nodes,
        timing: match args.pace {
            Pace::Instant => flocker_embedded::Timing::Instant,
            Pace::Stock => flocker_embedded::Timing::Stock,
        },
        certificate_profile: match args.certificate_profile {
            CertificateProfile::V1 => flocker_embedded::CertificateProfile::V1,
            CertificateProfile::V3 => flocker_embedded::CertificateProfile::V3,
        },
        eras,
        double_attach: args.double_attach,
        ..Options::new(args.data_dir, certificates)
    };
    args.storage.apply(options)
}
