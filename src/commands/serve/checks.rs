//! The checks before the plugin serves.

use flocker_client::Credentials;

use super::kubelet;
use super::parts::{host_settings, sources};
use crate::commands::failure::Failure;
use crate::config::{Config, Endpoint};
use crate::error;
use crate::flocker::attach::Takeover;
use crate::flocker::node_identity;
use crate::host::preconditions;
use crate::telemetry::{Metrics, spawn_blocking};

/// Checks the files that the settings name. Certificates outside their validity are accepted: what is mounted here can be
/// unmounted without Flocker.
///
/// # Errors
/// [`Failure::Configuration`] with every problem.
pub(super) async fn check_files(config: &Config) -> Result<Credentials, Failure> {
    let (flocker, sources) = (config.flocker.clone(), sources(config));
    let registration = kubelet::RegistrationSettings::of(config);
    let directories = own_directories(config);
    let check = move || {
        let credentials = flocker.credentials_for_any_time();
        let node = node_identity::check(&sources).map_err(|error| error.chain());
        match (credentials, node, registration, directories) {
            (Ok(credentials), Ok(()), Ok(_), Ok(())) => {
                if credentials.key_readable_by_others() {
                    let key = flocker.user_key.display();
                    tracing::warn!("The key {key} is readable by other users: run chmod 0600 {key}");
                }
                Ok(credentials)
            }
            (credentials, node, registration, directories) => {
                let credentials = credentials.err().map(|error| error::chain(&error));
                let problems = [credentials, node.err(), registration.err(), directories.err()];
                Err(Failure::Configuration(problems.into_iter().flatten().collect()))
            }
        }
    };
    spawn_blocking(check)
        .await
        .map_err(|error| Failure::context("check the configuration", &error))?
}

/// Checks that state and device nodes are kept in two directories: each is locked, and holds files of one kind.
pub(crate) fn own_directories(config: &Config) -> Result<(), String> {
    let (state, devices) = (&config.node.state_dir, &config.plugin.device_dir);
    if config.mode.serves_node() && state == devices {
        return Err(format!(
            "state_dir and device_dir are the same directory, {}: set device_dir to a directory of its own below /dev",
            state.display()
        ));
    }
    Ok(())
}

/// Warns of own directories in which other users can replace what the plugin relies on.
pub(super) async fn warn_of_exposed_directories(config: &Config) {
    let mut directories = vec![("state_dir", config.node.state_dir.clone())];
    if config.mode.serves_node() {
        directories.push(("device_dir", config.plugin.device_dir.clone()));
    }
    if let Endpoint::Unix(socket) = config.plugin.endpoint.absolute()
        && let Some(directory) = socket.parent()
    {
        directories.push(("directory of the endpoint", directory.to_owned()));
    }
    let exposed = move || {
        let directories: Vec<_> = directories
            .iter()
            .map(|(name, path)| (*name, path.as_path()))
            .collect();
        preconditions::exposed(&directories)
    };
    // It panics only on a bug, and the panic is in the log.
    for warning in spawn_blocking(exposed).await.unwrap_or_default() {
        tracing::warn!("{warning}");
    }
}

/// Checks the same as [`check_files`], and that this process has the capabilities and mounts that a node needs.
pub(super) async fn check_all(config: &Config) -> Result<Credentials, Failure> {
    let unmet = if config.mode.serves_node() {
        let (node, registration_dir) = (
            host_settings(config, &Metrics::default()),
            config.kubelet.kubelet_registration_dir.clone(),
        );
        spawn_blocking(move || preconditions::unmet(&node, registration_dir.as_deref()))
            .await
            .map_err(|error| Failure::context("check the requirements of a node", &error))?
    } else {
        Vec::new()
    };
    match check_files(config).await {
        Err(Failure::Configuration(wrong)) => Err(Failure::Configuration([wrong, unmet].concat())),
        Ok(_) if !unmet.is_empty() => Err(Failure::Configuration(unmet)),
        checked => checked,
    }
}

/// Says what a takeover needs that Flocker does not provide.
pub(super) fn warn_of_takeover(config: &Config) {
    if config.node_loss.takeover == Takeover::NodeGone {
        tracing::warn!(
            "takeover = node-gone: Flocker does not fence a node that it misses for takeover_grace ({} s). Either the backend has to \
             attach a volume to one machine at a time, as EBS, Cinder and GCE do and Flocker's loopback backend does not, or such \
             a node has to be off; else its tasks and those of the new node may write to one file system, until the plugin of the \
             missing node has started again",
            config.node_loss.takeover_grace.as_secs()
        );
    }
}
