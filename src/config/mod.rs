//! What the plugin is told: every setting, once.
//!
//! A setting is a field here: its documentation is the help text, its name is the key of the configuration file
//! and, with dashes, the flag and, in capitals after `FLOCKER_CSI_`, the environment variable. [`layers`] turns
//! file and environment into flags, so that all three are parsed and checked by the same code.

pub mod endpoint;
mod file;
mod flocker;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod layers;
#[cfg(test)]
mod tests;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use uuid::Uuid;

pub use endpoint::{Endpoint, ParseEndpointError};
pub use flocker::FlockerConfig;
pub use values::{absolute_path, driver_name};
use values::{
    allocation_unit, count, default_size, duration, http_address, log_filter, namespace, node_id, socket_path,
};

use crate::flocker::attach::Takeover;
use crate::flocker::provisioning::{Pool, ProvisionWait};
use crate::volume::{Namespace, SizePolicy};

/// Where the UUID of this node may be found.
const NODE_ID_FILE: &str = "/etc/flocker/node-id";

/// Everything `serve` is told.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// What this process serves.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::All, help_heading = "Plugin")]
    pub mode: Mode,
    /// What every way to run the plugin has in common.
    #[command(flatten)]
    pub plugin: PluginConfig,
    /// How Flocker is reached.
    #[command(flatten)]
    pub flocker: FlockerConfig,
    /// What is done about nodes that are lost.
    #[command(flatten)]
    pub node_loss: NodeLossConfig,
    /// Which node this is, and where it keeps things.
    #[command(flatten)]
    pub node: NodeConfig,
    /// How the kubelet of this node learns of the plugin.
    #[command(flatten)]
    pub kubelet: KubeletConfig,
    /// The storage there is, as Flocker cannot tell: one pool per flag, or per `[[pool]]` table of the file. Without a
    /// profile, for all volumes that have no pool of their own; with `per_node`, that much on every node.
    #[arg(
        id = "pool",
        long = "pool",
        value_name = "capacity=SIZE[,profile=NAME][,per_node=true]",
        help_heading = "Volumes"
    )]
    pub pools: Vec<Pool>,
    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogConfig,
}

/// The settings that every way to run the plugin has in common.
#[derive(Args, Clone, Debug)]
pub struct PluginConfig {
    /// Where orchestrators reach the plugin: `unix:///PATH`, `PATH`, or `tcp://HOST:PORT` on the loopback interface.
    /// The variable `CSI_ENDPOINT` is read too.
    #[arg(
        long,
        value_name = "ENDPOINT",
        default_value = "unix:///run/flocker-csi/csi.sock",
        help_heading = "Plugin"
    )]
    pub endpoint: Endpoint,
    /// Where probes are answered over HTTP, `/healthz` and `/readyz`: `ADDRESS:PORT`, an IPv6 address in brackets.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = http_address, help_heading = "Plugin")]
    pub metrics_address: Option<SocketAddr>,
    /// The name under which orchestrators know the plugin.
    #[arg(
        long,
        value_name = "NAME",
        value_parser = driver_name,
        default_value = "flocker.csi.clusterhq.com",
        help_heading = "Plugin"
    )]
    pub driver_name: String,
    /// The name space in which volume names are unique; the driver's name unless given.
    #[arg(long, value_name = "NAME", value_parser = namespace, help_heading = "Plugin")]
    pub namespace: Option<String>,
    /// Where the plugin makes its device nodes; removed when empty.
    #[arg(
        long,
        value_name = "DIR",
        value_parser = absolute_path(),
        default_value = "/dev/flocker-csi",
        help_heading = "Plugin"
    )]
    pub device_dir: PathBuf,
    /// Whose volumes are listed: the cluster's, or those of this node, as storage local resource providers of Mesos
    /// need it.
    #[arg(long, value_enum, value_name = "SCOPE", default_value_t = ListScope::Cluster, help_heading = "Volumes")]
    pub list_scope: ListScope,
    /// When a volume counts as created: backed by storage, or declared to Flocker.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ProvisionWait::Backed, help_heading = "Volumes")]
    pub provision_wait: ProvisionWait,
    /// The size of a volume for which none is asked.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = default_size,
        default_value = "10GiB",
        help_heading = "Volumes"
    )]
    pub default_size: u64,
    /// Sizes are rounded up to a multiple of this; 1GiB for EBS, Cinder and GCE.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = allocation_unit,
        default_value = "1MiB",
        help_heading = "Volumes"
    )]
    pub allocation_unit: u64,
    /// Whether a node that stages a volume by a name nobody has used makes the dataset, when the volume's context says
    /// `flocker.create=true`. A name that is only mistyped makes one too.
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        help_heading = "Volumes"
    )]
    pub create_on_first_use: bool,
    /// The most volumes a node takes; 0 leaves it to the orchestrator.
    #[arg(long, value_name = "NUMBER", value_parser = count, default_value = "0", help_heading = "Volumes")]
    pub max_volumes_per_node: u32,
}

/// What is done about nodes that are lost.
#[derive(Args, Clone, Debug)]
pub struct NodeLossConfig {
    /// When a volume is taken from a node that has not given it up. Flocker does not fence: a node that is only out of
    /// its sight goes on writing.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Takeover::Never, help_heading = "Flocker")]
    pub takeover: Takeover,
    /// How long a node has to be missing without a gap before it counts as gone.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "180s", help_heading = "Flocker")]
    pub takeover_grace: Duration,
}

/// Which node this is, and where it keeps things.
#[derive(Args, Clone, Debug)]
pub struct NodeConfig {
    /// The UUID of this node in Flocker; found out unless given.
    #[arg(long, value_name = "UUID", value_parser = node_id, help_heading = "Node")]
    pub node_id: Option<Uuid>,
    /// A file that holds the UUID of this node; read if it is there.
    #[arg(
        long,
        value_name = "FILE",
        value_parser = absolute_path(),
        default_value = NODE_ID_FILE,
        help_heading = "Node"
    )]
    pub node_id_file: PathBuf,
    /// Where Flocker mounts its datasets.
    #[arg(
        long,
        value_name = "DIR",
        value_parser = absolute_path(),
        default_value = "/flocker",
        help_heading = "Node"
    )]
    pub mount_root: PathBuf,
    /// Where the plugin remembers what it has staged.
    #[arg(
        long,
        value_name = "DIR",
        value_parser = absolute_path(),
        default_value = "/var/lib/flocker-csi",
        help_heading = "Node"
    )]
    pub state_dir: PathBuf,
}

/// How the kubelet of this node learns of the plugin.
#[derive(Args, Clone, Debug, Default)]
pub struct KubeletConfig {
    /// The directory in which the kubelet looks for plugins; the plugin registers itself there.
    #[arg(long, value_name = "DIR", value_parser = absolute_path(), help_heading = "Kubernetes")]
    pub kubelet_registration_dir: Option<PathBuf>,
    /// Where the kubelet reaches the plugin: the path of the endpoint's socket as the host sees it; the same unless
    /// given.
    #[arg(long, value_name = "PATH", value_parser = socket_path, help_heading = "Kubernetes")]
    pub kubelet_endpoint: Option<PathBuf>,
}

/// What is logged to stderr, and how.
#[derive(Args, Clone, Debug)]
pub struct LogConfig {
    /// How log lines look.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text, help_heading = "Log")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace, also by module, as in `info,flocker_csi::node=debug`.
    #[arg(long, value_name = "FILTER", value_parser = log_filter, default_value = "info", help_heading = "Log")]
    pub log: String,
}

/// What a process serves. Identity is always served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The controller and the node service.
    All,
    /// The controller service.
    Controller,
    /// The node service.
    Node,
}

/// Whose volumes are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListScope {
    /// Those of the whole cluster.
    Cluster,
    /// Those whose configured node is this one.
    Node,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Mode {
    /// Whether the controller service is served.
    pub fn serves_controller(self) -> bool {
        matches!(self, Self::All | Self::Controller)
    }

    /// Whether the node service is served.
    pub fn serves_node(self) -> bool {
        matches!(self, Self::All | Self::Node)
    }
}

impl Default for PluginConfig {
    fn default() -> Self {
        defaults_with(&[])
    }
}

impl Default for NodeLossConfig {
    fn default() -> Self {
        defaults_with(&[])
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        defaults_with(&[])
    }
}

/// Returns the settings of a group that has a default for everything but what `flags` say.
fn defaults_with<T: Args>(flags: &[String]) -> T {
    let command = T::augment_args(clap::Command::new("defaults").no_binary_name(true));
    let parsed = command
        .try_get_matches_from(flags)
        .and_then(|matches| T::from_arg_matches(&matches));
    parsed.expect("the defaults are valid, and every setting without one is given")
}

impl NodeConfig {
    /// Returns the settings for a node that is known.
    pub fn of(node_id: Uuid, mount_root: PathBuf, state_dir: PathBuf) -> Self {
        Self {
            node_id: Some(node_id),
            node_id_file: NODE_ID_FILE.into(),
            mount_root,
            state_dir,
        }
    }
}

impl PluginConfig {
    /// Returns the name space in which volume names are unique.
    pub fn namespace(&self) -> Namespace {
        Namespace::new(self.namespace.as_deref().unwrap_or(&self.driver_name))
    }

    /// Returns how sizes are chosen.
    pub fn sizes(&self) -> SizePolicy {
        SizePolicy {
            default_size: self.default_size,
            allocation_unit: self.allocation_unit,
        }
    }
}
