//! The connection of a command to Flocker.

use std::time::Duration;

use crate::commands::failure::Failure;
use crate::config::FlockerConfig;
use crate::error;
use crate::flocker::cluster::{Cluster, Flocker};
use crate::telemetry::spawn_blocking;

/// Reads the certificates, and returns the cluster that they are for; a node that is missing for `takeover_grace` counts as
/// gone. Flocker is not asked yet.
///
/// # Errors
/// [`Failure::Configuration`]: the certificates cannot be used.
pub(crate) async fn connect(config: &FlockerConfig, takeover_grace: Duration) -> Result<Cluster, Failure> {
    let blocking = config.clone();
    let credentials = spawn_blocking(move || blocking.credentials())
        .await
        .map_err(|error| Failure::context("read the certificates", &error))?
        .map_err(|error| Failure::configuration(error::chain(&error)))?;
    Ok(Cluster::new(
        Flocker::new(config.client(credentials)),
        takeover_grace,
    ))
}
