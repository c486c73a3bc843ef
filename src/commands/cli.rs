//! The command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use uuid::Uuid;

use crate::commands::admin::{DoctorArgs, GcArgs, LeasesArgs, NodesArgs, VolumesArgs};
use crate::commands::export::ExportArgs;
use crate::config::layers::{self, Environment, Refusal};
use crate::config::{Config, LogConfig, PluginConfig, absolute_path, doubts_of, duration, http_address};
use crate::telemetry::VERSION_AND_COMMIT;
use crate::volume::parse_size;

const SETTINGS_HELP: &str = "\
Every option is also an environment variable, FLOCKER_CSI_ and its name in capitals (FLOCKER_CSI_CONTROL_SERVICE),
and, with underscores, a key of the TOML file that --config names (control_service = \"https://10.0.0.1\").
The command line overrides the environment, and the environment overrides the file.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration.";

const EXPORT_HELP: &str = "\
Examples:
  kubectl get pv NAME... -o yaml | flocker-csi export --from kubernetes-pv - --claims
  flocker-csi export --from flocker [DATASET...] --claims=NAMESPACE

All objects or none are printed to standard output, and remarks to stderr; the command changes nothing.
The options of the group Flocker can be set by environment and file too, as for serve.
Exit status: 0 done, 1 failed, 2 wrong usage or configuration.";

const ADMIN_HELP: &str = "\
The options of the groups Flocker, Node and Log can be set by environment and file too, as for serve.
Exit status: 0 done, 1 failed, 2 wrong usage or configuration.";

const DOCTOR_HELP: &str = "\
Checks what the plugin needs, and says what to do about each fault. It changes nothing; in the state directory, it writes a
file without a name, which ceases to exist at once. The settings are those of serve.

Exit status: 0 all is well, 1 a fault of this machine or of Flocker, 2 wrong usage or configuration, 3 only warnings.";

/// Container Storage Interface plugin for Flocker.
#[derive(Debug, Parser)]
#[command(name = "flocker-csi", version, long_version = VERSION_AND_COMMIT, about, max_term_width = 110)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the plugin against a Flocker cluster.
    #[command(after_help = SETTINGS_HELP)]
    Serve(Box<ServeArgs>),
    /// Run the plugin and an embedded Flocker in one process: storage for a single machine.
    #[command(after_help = SETTINGS_HELP)]
    Standalone(Box<StandaloneArgs>),
    /// Run only the embedded Flocker: the control service's API and the agents of one or more nodes.
    Embedded(Box<EmbeddedArgs>),
    /// Print Kubernetes objects of this plugin for existing volumes: those of Kubernetes' old flocker plugin, and datasets.
    #[command(after_help = EXPORT_HELP)]
    Export(Box<ExportArgs>),
    /// List the volumes: where each is, which node holds its lease, and what this machine uses of it.
    #[command(after_help = ADMIN_HELP)]
    Volumes(Box<VolumesArgs>),
    /// List the nodes of the cluster, and say which one this machine is.
    #[command(after_help = ADMIN_HELP)]
    Nodes(Box<NodesArgs>),
    /// List the leases, or release one: leases release VOLUME --node NODE.
    #[command(after_help = ADMIN_HELP)]
    Leases(Box<LeasesArgs>),
    /// Find out what is wrong with the plugin, this machine or Flocker, and why a volume is stuck.
    #[command(after_help = DOCTOR_HELP)]
    Doctor(Box<DoctorArgs>),
    /// List what earlier processes left on this machine although nothing needs it, or remove it.
    #[command(after_help = ADMIN_HELP)]
    Gc(Box<GcArgs>),
    /// Show the life cycle of a volume on this machine, and leave nothing behind. Needs root.
    Demo(DemoArgs),
}

/// The arguments of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// The settings.
    #[command(flatten)]
    pub config: Config,
    /// The sources of the settings.
    #[command(flatten)]
    pub reading: Reading,
    /// What is doubtful about how they were given; no setting.
    #[arg(skip)]
    pub doubts: Vec<String>,
}

/// The sources of the settings beside flags and environment.
#[derive(Args, Debug)]
pub struct Reading {
    /// A TOML file with settings; an unknown key in it is an error.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the settings and the files that they name, and exit; with `deep`, run all checks of the command doctor too.
    #[arg(
        long,
        value_enum,
        value_name = "DEPTH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "files"
    )]
    pub check_config: Option<CheckDepth>,
}

/// How much `--check-config` checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckDepth {
    /// The settings, and the files and directories that they name.
    Files,
    /// This machine and Flocker too, without serving.
    Deep,
}

/// The arguments of `standalone`.
#[derive(Args, Debug)]
pub struct StandaloneArgs {
    /// The directory for the volumes and everything else that has to survive a restart.
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub data_dir: PathBuf,
    /// How the volumes are stored.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// The directory for the plugin's records of staged volumes; default: state in the data directory.
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub state_dir: Option<PathBuf>,
    /// The settings of the plugin.
    #[command(flatten)]
    pub plugin: PluginConfig,
    /// The settings of the log.
    #[command(flatten)]
    pub log: LogConfig,
    /// The sources of the settings.
    #[command(flatten)]
    pub reading: Reading,
}

/// The arguments of `embedded`.
#[derive(Args, Debug)]
pub struct EmbeddedArgs {
    /// The address of the REST API; port 0 stands for any free port.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4523")]
    pub listen: SocketAddr,
    /// The directory for the volumes and everything else that has to survive a restart.
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub data_dir: PathBuf,
    /// The number of nodes, all of them on this machine.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub nodes: usize,
    /// The speed of the nodes' agents: without waiting, or with the delays of Flocker's own agents.
    #[arg(long, value_enum, value_name = "PACE", default_value_t = Pace::Instant)]
    pub pace: Pace,
    /// The directory for the files of clients: cluster.crt, plugin.crt, plugin.key, and node-N.id with the UUID of each
    /// node; default: certificates in the data directory.
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub certificates: Option<PathBuf>,
    /// The X.509 version of the certificates: v1 as in Flocker's own, or v3.
    #[arg(long, value_enum, value_name = "VERSION", default_value_t = CertificateProfile::V1)]
    pub certificate_profile: CertificateProfile,
    /// How the volumes are stored.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// The address at which /metrics is answered over HTTP: an IPv6 address in brackets. No client is authenticated there.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = http_address)]
    pub metrics_address: Option<SocketAddr>,
    /// The boot id by which node N can be looked up; may be repeated. A single node has that of this machine too.
    #[arg(long, value_name = "N=UUID", value_parser = era)]
    era: Vec<(usize, Uuid)>,
    /// A JSON file with faults to inject, for tests; it is read again whenever it changes.
    #[arg(long, value_name = "FILE", value_parser = absolute_path(), hide = true)]
    pub faults: Option<PathBuf>,
    /// Attaches a volume that another node still uses to a second loop device, as Flocker's loopback backend does, for tests.
    #[arg(long, hide = true)]
    pub double_attach: bool,
    /// The settings of the log.
    #[command(flatten)]
    pub log: LogConfig,
}

/// The arguments of `demo`.
#[derive(Args, Debug)]
#[command(mut_arg("log", |log| log.default_value("warn")))]
pub struct DemoArgs {
    /// The settings of the log, which is printed beside the steps.
    #[command(flatten)]
    pub log: LogConfig,
}

/// How an embedded Flocker stores its volumes.
#[derive(Args, Clone, Copy, Debug)]
pub struct StorageArgs {
    /// The total capacity for volumes; default: the free space of the file system.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub capacity: Option<u64>,
    /// How long deleted volumes stay in the embedded Flocker's list, at least.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1h")]
    deleted_listed_for: Duration,
    /// When the storage of a volume is taken: thick when it is made, so that nothing else can use it up; thin as it is
    /// written.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Allocation::Thick)]
    allocation: Allocation,
    /// How volumes are read and written: direct, past the page cache of the file system that has them; or buffered.
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Io::Direct)]
    io: Io,
}

impl StorageArgs {
    /// Adds these settings to those of an embedded Flocker.
    pub(crate) fn apply(self, options: flocker_embedded::Options) -> flocker_embedded::Options {
        flocker_embedded::Options {
            capacity: self.capacity,
            deleted_listed_for: self.deleted_listed_for,
            allocation: match self.allocation {
                Allocation::Thick => flocker_embedded::Allocation::Thick,
                Allocation::Thin => flocker_embedded::Allocation::Thin,
            },
            io: match self.io {
                Io::Direct => flocker_embedded::Io::Direct,
                Io::Buffered => flocker_embedded::Io::Buffered,
            },
            ..options
        }
    }
}

/// When the storage of a volume is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Allocation {
    /// When it is made.
    Thick,
    /// As it is written.
    Thin,
}

/// How volumes are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Io {
    /// Past the page cache of the file system that has them.
    Direct,
    /// Through it.
    Buffered,
}

/// The speed of the agents of an embedded Flocker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pace {
    /// Without waiting.
    Instant,
    /// With the delays of Flocker's own agents.
    Stock,
}

/// The X.509 version of the certificates of an embedded Flocker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CertificateProfile {
    /// Version 1 with extensions, as in Flocker's own.
    V1,
    /// Version 3.
    V3,
}

impl Cli {
    /// Reads the command line on top of the environment and the configuration file.
    ///
    /// Returns it with warnings for the user.
    ///
    /// # Errors
    /// The command line or a setting is wrong, or requests help or the version.
    pub fn read(arguments: &[OsString], environment: &Environment) -> Result<(Self, Vec<String>), Refusal> {
        let (matches, warnings) = layers::parse(&Self::command(), arguments, environment)?;
        let mut cli = Self::from_arg_matches(&matches).map_err(Refusal::CommandLine)?;
        cli.command.note_doubts(&matches);
        match cli.command.plugin().and_then(PluginConfig::problem) {
            Some(problem) => Err(Refusal::Settings(vec![problem])),
            None => Ok((cli, warnings)),
        }
    }
}

impl Command {
    /// Returns how much is checked, if the command only checks the settings.
    pub fn only_checks(&self) -> Option<CheckDepth> {
        match self {
            Self::Serve(args) => args.reading.check_config,
            Self::Standalone(args) => args.reading.check_config,
            _ => None,
        }
    }

    /// Notes what is doubtful about how the settings were given.
    fn note_doubts(&mut self, matches: &ArgMatches) {
        let Some((_, given)) = matches.subcommand() else {
            return;
        };
        match self {
            Self::Serve(args) => args.doubts = doubts_of(&args.config, given),
            Self::Doctor(args) => args.doubts = doubts_of(&args.config, given),
            _ => {}
        }
    }

    /// Returns the settings of the plugin that the command runs.
    fn plugin(&self) -> Option<&PluginConfig> {
        match self {
            Self::Serve(args) => Some(&args.config.plugin),
            Self::Standalone(args) => Some(&args.plugin),
            Self::Doctor(args) => Some(&args.config.plugin),
            _ => None,
        }
    }

    /// Returns the settings of the log.
    pub fn log(&self) -> &LogConfig {
        match self {
            Self::Serve(args) => &args.config.log,
            Self::Standalone(args) => &args.log,
            Self::Embedded(args) => &args.log,
            Self::Export(args) => &args.log,
            Self::Volumes(args) => &args.admin.log,
            Self::Nodes(args) => &args.admin.log,
            Self::Leases(args) => &args.admin.log,
            Self::Doctor(args) => &args.config.log,
            Self::Gc(args) => &args.admin.log,
            Self::Demo(args) => &args.log,
        }
    }
}

impl EmbeddedArgs {
    /// Returns the boot ids by the number of their node; the last one of a node counts.
    pub(crate) fn eras(&self) -> BTreeMap<usize, Uuid> {
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
    fn flags_for_tests_are_hidden() {
        let command = Cli::command();
        let embedded = command.find_subcommand("embedded").unwrap();
        for name in ["faults", "double_attach"] {
            let mut arguments = embedded.get_arguments();
            let flag = arguments.find(|argument| argument.get_id() == name);
            assert!(flag.unwrap().is_hide_set(), "{name}");
        }
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
        let is_setting = |line: &&str| line.starts_with("| `") && !line.starts_with("| `--");
        assert_eq!(
            settings,
            page.lines().filter(is_setting).count(),
            "no row too many"
        );
    }
}
