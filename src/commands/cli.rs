//! The command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use uuid::Uuid;

use crate::commands::export::ExportArgs;
use crate::config::layers::{self, Environment, Refusal};
use crate::config::{Config, LogConfig, PluginConfig, absolute_path};
use crate::volume::parse_size;

const SETTINGS_HELP: &str = "\
Every option is also an environment variable, FLOCKER_CSI_ and its name in capitals (FLOCKER_CSI_CONTROL_SERVICE),
and, with underscores, a key of the TOML file that --config names (control_service = \"https://10.0.0.1\").
The command line takes precedence over the environment, and the environment over the file.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration.";

const EXPORT_HELP: &str = "\
Examples:
  kubectl get pv NAME... -o yaml | flocker-csi export --from kubernetes-pv - --claims
  flocker-csi export --from flocker [DATASET...] --claims=NAMESPACE

The objects go to the standard output, all of them or none, and remarks to stderr; export changes nothing.
The options that concern Flocker can also be set by environment and file, as those of serve.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration.";

/// Container Storage Interface plugin for Flocker.
#[derive(Debug, Parser)]
#[command(name = "flocker-csi", version, about, max_term_width = 110)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The program's subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the plugin against a Flocker cluster.
    #[command(after_help = SETTINGS_HELP)]
    Serve(Box<ServeArgs>),
    /// Run the plugin and an embedded Flocker in one process: storage for a single machine.
    #[command(after_help = SETTINGS_HELP)]
    Standalone(Box<StandaloneArgs>),
    /// Run only the embedded Flocker: the control service's API and the agents of one or more nodes.
    Embedded(EmbeddedArgs),
    /// Write existing volumes as Kubernetes objects for this plugin: those of its in-tree flocker plugin, and datasets.
    #[command(after_help = EXPORT_HELP)]
    Export(Box<ExportArgs>),
    /// Show the whole life of a volume on this machine; leaves nothing behind. Needs root.
    Demo(DemoArgs),
}

/// The arguments of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// The settings.
    #[command(flatten)]
    pub config: Config,
    /// How the settings are read.
    #[command(flatten)]
    pub reading: Reading,
}

/// The options that say where settings come from.
#[derive(Args, Debug)]
pub struct Reading {
    /// Also reads settings from this TOML file; an unknown key in it is an error.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Checks all settings, and the files they name, and exits.
    #[arg(long)]
    pub check_config: bool,
}

/// The arguments of `standalone`.
#[derive(Args, Debug)]
pub struct StandaloneArgs {
    /// The directory of the volumes and of everything else that must survive a restart.
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub data_dir: PathBuf,
    /// The most that all volumes together may take; by default the free space of the file system.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub capacity: Option<u64>,
    /// The directory in which the plugin records what it has staged; by default DIR/state.
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub state_dir: Option<PathBuf>,
    /// The settings of the plugin.
    #[command(flatten)]
    pub plugin: PluginConfig,
    /// What is logged, and in which format.
    #[command(flatten)]
    pub log: LogConfig,
    /// How the settings are read.
    #[command(flatten)]
    pub reading: Reading,
}

/// The arguments of `embedded`.
#[derive(Args, Debug)]
pub struct EmbeddedArgs {
    /// The address of the REST API; port 0 selects any free port.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4523")]
    pub listen: SocketAddr,
    /// The directory of the volumes and of everything else that must survive a restart.
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub data_dir: PathBuf,
    /// The number of nodes; all of them are on this machine.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub nodes: usize,
    /// How fast the agents of the nodes work: without delays, or with the delays of Flocker's own agents.
    #[arg(long, value_enum, value_name = "PACE", default_value_t = Pace::Instant)]
    pub pace: Pace,
    /// The directory for the files that clients need: cluster.crt, plugin.crt, plugin.key, and node-N.id with the UUID
    /// of each node; by default DIR/certificates.
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub certificates: Option<PathBuf>,
    /// The X.509 version of the certificates: v1 as Flocker makes them, or v3.
    #[arg(long, value_enum, value_name = "VERSION", default_value_t = CertificateProfile::V1)]
    pub certificate_profile: CertificateProfile,
    /// The most that all volumes together may take; by default the free space of the file system.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub capacity: Option<u64>,
    /// The boot id by which a client finds node N; may be repeated. A single node also has that of this machine.
    #[arg(long, value_name = "N=UUID", value_parser = era)]
    era: Vec<(usize, Uuid)>,
    /// A JSON file that lists the faults to inject, for tests; it is read again whenever it changes.
    #[arg(long, value_name = "FILE", value_parser = absolute_path(), hide = true)]
    pub faults: Option<PathBuf>,
    /// What is logged, and in which format.
    #[command(flatten)]
    pub log: LogConfig,
}

/// The arguments of `demo`.
#[derive(Args, Debug)]
#[command(mut_arg("log", |log| log.default_value("warn")))]
pub struct DemoArgs {
    /// What is logged beside the steps, and in which format.
    #[command(flatten)]
    pub log: LogConfig,
}

/// How fast the agents of an embedded Flocker work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pace {
    /// Without delays.
    Instant,
    /// With the delays of Flocker's own agents.
    Stock,
}

/// The X.509 version of the certificates of an embedded Flocker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CertificateProfile {
    /// Version 1 with extensions, as Flocker makes them.
    V1,
    /// Version 3.
    V3,
}

impl Cli {
    /// Reads the command line on top of the environment and the configuration file.
    ///
    /// Also returns warnings for people.
    ///
    /// # Errors
    /// The command line or a setting is wrong; or help or the version was requested.
    pub fn read(arguments: &[OsString], environment: &Environment) -> Result<(Self, Vec<String>), Refusal> {
        let (matches, warnings) = layers::parse(&Self::command(), arguments, environment)?;
        let cli = Self::from_arg_matches(&matches).map_err(Refusal::CommandLine)?;
        Ok((cli, warnings))
    }
}

impl Command {
    /// Returns whether only the settings are checked.
    pub fn only_checks(&self) -> bool {
        match self {
            Self::Serve(args) => args.reading.check_config,
            Self::Standalone(args) => args.reading.check_config,
            Self::Embedded(_) | Self::Export(_) | Self::Demo(_) => false,
        }
    }

    /// Returns what is logged, and in which format.
    pub fn log(&self) -> &LogConfig {
        match self {
            Self::Serve(args) => &args.config.log,
            Self::Standalone(args) => &args.log,
            Self::Embedded(args) => &args.log,
            Self::Export(args) => &args.log,
            Self::Demo(args) => &args.log,
        }
    }
}

impl EmbeddedArgs {
    /// Returns the boot ids by the number of their node; if a node has several, the last one.
    pub fn eras(&self) -> BTreeMap<usize, Uuid> {
        self.era.iter().copied().collect()
    }
}

fn era(text: &str) -> Result<(usize, Uuid), String> {
    text.split_once('=')
        .and_then(|(number, era)| Some((number.parse().ok()?, Uuid::try_parse(era).ok()?)))
        .ok_or_else(|| "expected the number of a node, = and a UUID".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_for_tests_are_hidden() {
        let command = Cli::command();
        let embedded = command.find_subcommand("embedded").unwrap();
        let faults = embedded
            .get_arguments()
            .find(|argument| argument.get_id() == "faults");
        assert!(faults.unwrap().is_hide_set());
    }

    #[test]
    fn every_setting_is_documented_with_its_default() {
        let page = include_str!("../../docs/configuration.md");
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        let mut settings = 0;
        for argument in serve.get_arguments() {
            let key = argument.get_id().as_str();
            if ["config", "check_config", "help", "version"].contains(&key) {
                continue;
            }
            settings += 1;
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{key}` |")));
            let row = row.unwrap_or_else(|| panic!("{key} is not in docs/configuration.md"));
            if let [default] = argument.get_default_values() {
                assert!(
                    row.contains(&format!("| `{}` |", default.to_string_lossy())),
                    "{row}"
                );
            }
        }
        assert_eq!(
            settings,
            page.lines().filter(|line| line.starts_with("| `")).count(),
            "no row is superfluous"
        );
    }
}
