//! What the checks have in common: the settings, and what earlier checks have found.

use std::net::SocketAddr;

use flocker_client::Credentials;

use super::super::survey::Survey;
use super::examined::{ExaminedVolume, FirstAnswer};
use super::finding::Finding;
use crate::config::Config;
use crate::host::LocalDirectories;
use crate::telemetry::spawn_blocking;

/// What the checks are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To check the settings, and the files and directories that they name.
    CheckFiles,
    /// To check everything before a plugin serves.
    CheckDeep,
    /// To find out what is wrong with a plugin that serves.
    Doctor,
}

/// The subject of the checks, and what they have found.
pub(super) struct Examination<'a> {
    pub(super) config: &'a Config,
    /// What is doubtful about how the settings were given.
    pub(super) doubts: &'a [String],
    pub(super) purpose: Purpose,
    /// The volume that is asked about: its id or its name.
    pub(super) asked_volume: Option<&'a str>,
    /// The process that answers on the endpoint.
    pub(super) plugin: Option<u32>,
    pub(super) credentials: Option<Credentials>,
    /// The addresses of the control service.
    pub(super) addresses: Vec<SocketAddr>,
    /// Its answer to the first request.
    pub(super) answer: Option<FirstAnswer>,
    pub(super) survey: Option<Survey>,
    pub(super) volume: Option<ExaminedVolume>,
}

impl<'a> Examination<'a> {
    pub(super) fn new(config: &'a Config, doubts: &'a [String], purpose: Purpose) -> Self {
        Self {
            config,
            doubts,
            purpose,
            asked_volume: None,
            plugin: None,
            credentials: None,
            addresses: Vec::new(),
            answer: None,
            survey: None,
            volume: None,
        }
    }

    /// Returns the directories that this machine's knowledge of volumes is read from.
    pub(super) fn directories(&self) -> LocalDirectories {
        LocalDirectories {
            mount_root: self.config.node.mount_root.clone(),
            state_dir: self.config.node.state_dir.clone(),
            device_dir: self.config.plugin.device_dir.clone(),
        }
    }

    /// Returns the host of the control service, as a command names it.
    pub(super) fn control_host(&self) -> &'a str {
        self.config.flocker.control_service.host()
    }
}

/// Makes a check on a thread that may block.
pub(super) async fn blocking(check: impl FnOnce() -> Finding + Send + 'static) -> Finding {
    spawn_blocking(check).await.unwrap_or_else(|error| {
        // It panics only on a bug, and the panic is in the log.
        Finding::error(format!("the check itself failed: {error}")).next("report this as a bug")
    })
}
