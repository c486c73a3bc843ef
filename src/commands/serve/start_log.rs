//! What the log says about a start, so that an operator sees later which program ran with which settings.

use flocker_client::Credentials;

use crate::config::Config;
use crate::host::host_name;
use crate::telemetry::{COMMIT, VERSION};

/// Logs which program starts, in which role, and with which certificates.
pub(super) fn log_start(config: &Config, credentials: &Credentials) {
    let (mode, driver) = (config.mode.name(), &config.plugin.driver_name);
    let control_service = config.flocker.control_service.to_string();
    let host = host_name();
    tracing::info!(
        version = VERSION,
        commit = COMMIT,
        mode,
        driver.name = %driver,
        control_service,
        host.name = host,
        "Starting flocker-csi {VERSION} (commit {COMMIT}) on {host} as {driver}, in mode {mode}, with the control service \
         {control_service}"
    );
    let (cluster, user) = (credentials.cluster_not_after(), credentials.user_not_after());
    let [cluster, user] = [cluster, user].map(|end| humantime::format_rfc3339_seconds(end).to_string());
    tracing::info!(
        cluster_cert.end = cluster,
        user_cert.end = user,
        "The cluster's certificate is valid until {cluster}, and that of user {} until {user}",
        credentials.user()
    );
}
