//! The arguments that every example has.

use std::{error::Error, path::PathBuf};

use flocker_client::{Client, ClientSettings, ControlService, Credentials};

/// How to reach a control service.
#[derive(Debug, clap::Args)]
pub(crate) struct Connection {
    /// Address of the control service, `https://HOST[:PORT]`; the port is 4523 by default.
    #[arg(long)]
    control_service: ControlService,
    /// Certificate of the cluster, in PEM form.
    #[arg(long, default_value = "/etc/flocker/cluster.crt")]
    cluster_cert: PathBuf,
    /// Certificate of a user, as `flocker-ca create-api-certificate NAME` makes it.
    #[arg(long, default_value = "/etc/flocker/plugin.crt")]
    user_cert: PathBuf,
    /// Private key of that certificate.
    #[arg(long, default_value = "/etc/flocker/plugin.key")]
    user_key: PathBuf,
    /// Name that the certificate of the control service carries.
    #[arg(long, default_value = "control-service")]
    server_name: String,
}

impl Connection {
    /// Loads the certificates and makes a client, on a thread that may block.
    pub(crate) async fn client(self) -> Result<Client, Box<dyn Error>> {
        let made = tokio::task::spawn_blocking(move || -> Result<Client, flocker_client::Error> {
            let credentials = Credentials::load(&self.cluster_cert, &self.user_cert, &self.user_key)?;
            Client::new(ClientSettings {
                server_name: self.server_name,
                ..ClientSettings::new(self.control_service, credentials)
            })
        });
        Ok(made.await??)
    }
}

/// Prints an error with all its causes, as a library user would log it.
pub(crate) fn print_chain(error: &dyn Error) {
    eprint!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
}
