//! The settings of the plugin in the shipped files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use flocker_csi::commands::cli::{Cli, Command};
use flocker_csi::config::layers::Refusal;
use flocker_csi::config::{Config, ListScope, Mode};

use super::report::Report;

/// The part of Mesos that runs a plugin with some settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A storage local resource provider.
    Provider,
    /// `volume/csi`.
    Isolator,
}

/// Reads settings as the program does.
pub(super) fn read(report: &mut Report, text: &str) -> Option<Config> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let config = format!("--config={}", file.path().display());
    let arguments: Vec<_> = ["flocker-csi", "serve", &config].map(OsString::from).to_vec();
    match Cli::read(&arguments, &BTreeMap::new()) {
        Ok((cli, _warnings)) => match cli.command {
            Command::Serve(arguments) => Some(arguments.config),
            other => panic!("{other:?}"),
        },
        Err(Refusal::Settings(problems)) => {
            for problem in problems {
                report.refuse("settings", problem);
            }
            None
        }
        Err(Refusal::CommandLine(error)) => {
            report.refuse("settings", error);
            None
        }
    }
}

/// Checks settings for the part of Mesos that uses them.
pub(super) fn check(report: &mut Report, config: &Config, role: Role) {
    match role {
        Role::Provider => {
            report.require(
                config.plugin.list_scope == ListScope::Node,
                "list_scope",
                "with another than node every agent offers the volumes of all",
            );
            report.require(
                config.mode == Mode::All,
                "mode",
                "a resource provider needs controller and node",
            );
            report.require(
                !config.pools.is_empty(),
                "pool",
                "what is declared nowhere is offered nowhere",
            );
            for pool in &config.pools {
                report.require(
                    pool.per_node,
                    "pool.per_node",
                    "a pool of the cluster is offered by every agent as a whole",
                );
            }
        }
        Role::Isolator => {
            report.require(
                config.mode == Mode::Node,
                "mode",
                "volume/csi calls the node half alone",
            );
        }
    }
}

/// Returns the directories that must belong to one plugin alone.
pub(super) fn own_directories(config: &Config) -> [(&'static str, &PathBuf); 2] {
    [
        ("state_dir", &config.node.state_dir),
        ("device_dir", &config.plugin.device_dir),
    ]
}
