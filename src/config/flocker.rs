//! Settings for reaching Flocker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use flocker_client::{ControlService, Credentials, CredentialsError};

use super::values::server_name;
use super::{absolute_path, defaults_with};

/// The settings for reaching Flocker.
#[derive(Args, Clone, Debug)]
pub struct FlockerConfig {
    /// Flocker's control service: `https://HOST[:PORT]`, port 4523 unless given.
    #[arg(long, value_name = "URL", help_heading = "Flocker")]
    pub control_service: ControlService,
    /// The certificate of the cluster.
    #[arg(
        long,
        value_name = "FILE",
        value_parser = absolute_path(),
        default_value = "/etc/flocker/cluster.crt",
        help_heading = "Flocker"
    )]
    pub cluster_cert: PathBuf,
    /// The user certificate with which the plugin authenticates to Flocker.
    #[arg(
        long,
        value_name = "FILE",
        value_parser = absolute_path(),
        default_value = "/etc/flocker/plugin.crt",
        help_heading = "Flocker"
    )]
    pub user_cert: PathBuf,
    /// The key of the user certificate.
    #[arg(
        long,
        value_name = "FILE",
        value_parser = absolute_path(),
        default_value = "/etc/flocker/plugin.key",
        help_heading = "Flocker"
    )]
    pub user_key: PathBuf,
    /// The name in the control service's certificate, independent of the host in the URL.
    #[arg(
        long,
        value_name = "NAME",
        value_parser = server_name,
        default_value = "control-service",
        help_heading = "Flocker"
    )]
    pub server_name: String,
}

impl FlockerConfig {
    /// Reads the certificates; that blocks.
    ///
    /// # Errors
    /// A file is missing or invalid.
    pub(crate) fn credentials(&self) -> Result<Credentials, CredentialsError> {
        Credentials::load(&self.cluster_cert, &self.user_cert, &self.user_key)
    }

    /// As [`Self::credentials`], but accepts certificates that have expired or are not valid yet.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn credentials_for_any_time(&self) -> Result<Credentials, CredentialsError> {
        Credentials::load_for_any_time(&self.cluster_cert, &self.user_cert, &self.user_key)
    }

    /// Returns the settings of a client of Flocker.
    pub(crate) fn client(&self, credentials: Credentials) -> flocker_client::ClientSettings {
        flocker_client::ClientSettings {
            server_name: self.server_name.clone(),
            ..flocker_client::ClientSettings::new(self.control_service.clone(), credentials)
        }
    }

    /// Returns the settings for an embedded Flocker at `address` with its client files in `certificates`.
    pub fn embedded(address: SocketAddr, certificates: &Path) -> Self {
        Self {
            cluster_cert: certificates.join("cluster.crt"),
            user_cert: certificates.join("plugin.crt"),
            user_key: certificates.join("plugin.key"),
            ..defaults_with(&[format!("--control-service={}", ControlService::from(address))])
        }
    }
}
