//! The arguments that the commands have in common.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::config::{FlockerConfig, LogConfig, NodeConfig, NodeLossConfig, absolute_path};
use crate::host::LocalDirectories;

/// The settings of `serve` that say where Flocker and this machine's volumes are, and the format of the output.
#[derive(Args, Clone, Debug)]
#[command(
    mut_arg("log", |log| log.default_value("warn")),
    mut_arg("takeover", |unused| unused.hide(true)),
    mut_arg("abandoned_grace", |unused| unused.hide(true)),
    mut_arg("only_nodes_attach", |unused| unused.hide(true)),
)]
pub struct AdminArgs {
    /// The format of the output: tables for people, or JSON whose schemas are in docs/schemas.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(super) output: Format,
    /// Reads the settings from the plugin's configuration file.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The address and certificates of Flocker.
    #[command(flatten)]
    pub(super) flocker: FlockerConfig,
    /// When a node counts as gone.
    #[command(flatten)]
    pub(super) node_loss: NodeLossConfig,
    /// The identity and the directories of this node.
    #[command(flatten)]
    pub(super) node: NodeConfig,
    /// The directory for the plugin's device nodes.
    #[arg(
        long,
        value_name = "DIR",
        value_parser = absolute_path(),
        default_value = "/dev/flocker-csi",
        help_heading = "Node"
    )]
    pub(super) device_dir: PathBuf,
    /// What is logged to stderr, and in which format.
    #[command(flatten)]
    pub(crate) log: LogConfig,
}

impl AdminArgs {
    /// Returns the directories that this machine's knowledge of volumes is read from.
    pub(super) fn directories(&self) -> LocalDirectories {
        LocalDirectories {
            mount_root: self.node.mount_root.clone(),
            state_dir: self.node.state_dir.clone(),
            device_dir: self.device_dir.clone(),
        }
    }
}

/// The format of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
}
