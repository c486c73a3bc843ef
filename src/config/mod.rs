//! The settings of the plugin.
//!
//! A setting is a field here: its documentation is the help text, its name is the key of the configuration file
//! and, with dashes, the flag and, in capitals after `FLOCKER_CSI_`, the environment variable. [`layers`] converts
//! file and environment to flags, so that the same code parses and checks all three.

mod contradictions;
pub(crate) mod endpoint;
mod file;
mod flocker;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod layers;
mod review;
mod secrets;
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
pub(crate) use review::{OWN_CRATES, doubts_of};
pub(crate) use values::{absolute_path, driver_name, duration, http_address};
use values::{allocation_unit, count, default_size, limit, log_filter, namespace, node_id, socket_path};

use crate::flocker::attach::Takeover;
use crate::flocker::provisioning::{Pool, ProvisionWait};
use crate::host::agent_file_systems;
use crate::telemetry::OtlpEndpoint;
use crate::volume::{Namespace, SizePolicy, Topology, TopologyKey};

/// The default of `node_id_file`.
const NODE_ID_FILE: &str = "/etc/flocker/node-id";

/// The settings of `serve`.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// The services of this process, beside Identity.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::All, help_heading = "Plugin")]
    pub mode: Mode,
    /// The settings that all commands that run the plugin have in common.
    #[command(flatten)]
    pub plugin: PluginConfig,
    /// The settings for reaching Flocker.
    #[command(flatten)]
    pub flocker: FlockerConfig,
    /// The handling of lost nodes.
    #[command(flatten)]
    pub node_loss: NodeLossConfig,
    /// The identity and the directories of this node.
    #[command(flatten)]
    pub node: NodeConfig,
    /// The registration with the kubelet of this node.
    #[command(flatten)]
    pub kubelet: KubeletConfig,
    /// The storage pools, which Flocker does not report: one per flag, or per `[[pool]]` table of the file. A pool without
    /// a profile holds all volumes that have no pool of their own; with `per_node`, every node has this capacity.
    #[arg(
        id = "pool",
        long = "pool",
        value_name = "capacity=SIZE[,profile=NAME][,per_node=true]",
        help_heading = "Volumes"
    )]
    pub pools: Vec<Pool>,
    /// The settings of the log.
    #[command(flatten)]
    pub log: LogConfig,
}

/// The settings that all commands that run the plugin have in common.
#[derive(Args, Clone, Debug)]
pub struct PluginConfig {
    /// The endpoint for orchestrators: `unix:///PATH`, `PATH`, or, with `allow_unauthenticated_tcp`, `tcp://HOST:PORT` on
    /// the loopback interface. The environment variable `CSI_ENDPOINT` sets it too.
    #[arg(
        long,
        value_name = "ENDPOINT",
        default_value = "unix:///run/flocker-csi/csi.sock",
        help_heading = "Plugin"
    )]
    pub endpoint: Endpoint,
    /// Whether the endpoint may be a TCP port. Every user and every program of this machine that reaches the port can
    /// then mount over directories and delete volumes.
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        help_heading = "Plugin"
    )]
    pub allow_unauthenticated_tcp: bool,
    /// The maximum number of open connections; one more closes the connection that has been idle for longest.
    #[arg(long, value_name = "NUMBER", value_parser = limit, default_value = "256", help_heading = "Plugin")]
    pub max_connections: u32,
    /// The maximum number of calls in progress; one more is refused. One connection may have half of them.
    #[arg(long, value_name = "NUMBER", value_parser = limit, default_value = "2048", help_heading = "Plugin")]
    pub max_calls: u32,
    /// The address of the HTTP server for probes (`/healthz`, `/readyz`): `ADDRESS:PORT`, an IPv6 address in brackets.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = http_address, help_heading = "Plugin")]
    pub metrics_address: Option<SocketAddr>,
    /// The URL of the collector to which traces are sent, by OTLP over HTTP: `http://HOST:4318`.
    #[arg(long, value_name = "URL", help_heading = "Plugin")]
    pub otlp_endpoint: Option<OtlpEndpoint>,
    /// The name of the plugin for orchestrators.
    #[arg(
        long,
        value_name = "NAME",
        value_parser = driver_name,
        default_value = "flocker.csi.clusterhq.com",
        help_heading = "Plugin"
    )]
    pub driver_name: String,
    /// The namespace in which volume names are unique; default: the driver's name.
    #[arg(long, value_name = "NAME", value_parser = namespace, help_heading = "Plugin")]
    pub namespace: Option<String>,
    /// The directory for the plugin's device nodes; removed when empty.
    #[arg(
        long,
        value_name = "DIR",
        value_parser = absolute_path(),
        default_value = "/dev/flocker-csi",
        help_heading = "Plugin"
    )]
    pub device_dir: PathBuf,
    /// Whether volumes are published on every mount that is shared, without verifying that the host sees it. For a plugin
    /// that cannot read `/proc/1/mountinfo`, or whose tasks live in another mount namespace than process 1. Where its
    /// mounts reach no task, tasks write into a plain directory.
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        help_heading = "Node"
    )]
    pub accept_unverified_propagation: bool,
    /// Which volumes are listed: those of the cluster, or those of this node, as the storage local resource providers of
    /// Mesos require.
    #[arg(long, value_enum, value_name = "SCOPE", default_value_t = ListScope::Cluster, help_heading = "Volumes")]
    pub list_scope: ListScope,
    /// When a volume counts as created: backed by storage, or declared to Flocker.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ProvisionWait::Backed, help_heading = "Volumes")]
    pub provision_wait: ProvisionWait,
    /// The size of a volume that is requested without one.
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
    /// Whether staging a volume by a name that no dataset has creates the dataset, if the volume's context contains
    /// `flocker.create=true`. A mistyped name creates one too.
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
    /// Whether orchestrators learn where nodes are, and say where they want a new volume. With `hint`, the orchestrator's
    /// preferred node becomes the volume's first one; the volume can be used on every node all the same.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Topology::Off, help_heading = "Volumes")]
    pub topology: Topology,
    /// The maximum number of volumes on a node; 0 leaves the limit to the orchestrator.
    #[arg(long, value_name = "NUMBER", value_parser = count, default_value = "0", help_heading = "Volumes")]
    pub max_volumes_per_node: u32,
}

/// The handling of lost nodes.
#[derive(Args, Clone, Debug)]
pub struct NodeLossConfig {
    /// When a volume is taken from a node that still holds its lease. Flocker does not fence: a node that is only
    /// unreachable for Flocker continues to write.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Takeover::Never, help_heading = "Flocker")]
    pub takeover: Takeover,
    /// How long a node has to be missing without interruption before it counts as lost.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "180s", help_heading = "Flocker")]
    pub takeover_grace: Duration,
}

/// The identity and the directories of a node.
#[derive(Args, Clone, Debug)]
pub struct NodeConfig {
    /// The UUID of this node in Flocker; default: determined through Flocker.
    #[arg(long, value_name = "UUID", value_parser = node_id, help_heading = "Node")]
    pub node_id: Option<Uuid>,
    /// A file with the UUID of this node; read if it exists.
    #[arg(
        long,
        value_name = "FILE",
        value_parser = absolute_path(),
        default_value = NODE_ID_FILE,
        help_heading = "Node"
    )]
    pub node_id_file: PathBuf,
    /// The directory in which Flocker mounts its datasets.
    #[arg(
        long,
        value_name = "DIR",
        value_parser = absolute_path(),
        default_value = "/flocker",
        help_heading = "Node"
    )]
    pub mount_root: PathBuf,
    /// The directory for the plugin's records of staged volumes.
    #[arg(
        long,
        value_name = "DIR",
        value_parser = absolute_path(),
        default_value = "/var/lib/flocker-csi",
        help_heading = "Node"
    )]
    pub state_dir: PathBuf,
    /// The types of file systems without a block device that Flocker's agents mount; no setting: only tests have others
    /// than those of Flocker's own backends.
    #[arg(skip = agent_file_systems())]
    pub agent_file_systems: Vec<String>,
    /// How long a volume stays staged here that nothing uses and whose lease no node holds any more. Some orchestrators
    /// never unstage.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s", help_heading = "Node")]
    pub abandoned_grace: Duration,
    /// Whether only nodes attach volumes: no orchestrator of this Flocker cluster calls `ControllerPublishVolume`. Then, with
    /// `mode = node`, unstaging a volume that this node does not know releases the lease of this node on it.
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        help_heading = "Node"
    )]
    pub only_nodes_attach: bool,
}

/// The registration with the kubelet of this node.
#[derive(Args, Clone, Debug, Default)]
pub struct KubeletConfig {
    /// The directory in which the kubelet discovers plugins; the plugin registers itself there.
    #[arg(long, value_name = "DIR", value_parser = absolute_path(), help_heading = "Kubernetes")]
    pub kubelet_registration_dir: Option<PathBuf>,
    /// The path of the endpoint's socket in the host's file system, which the kubelet connects to; default: the path in
    /// `endpoint`.
    #[arg(long, value_name = "PATH", value_parser = socket_path, help_heading = "Kubernetes")]
    pub kubelet_endpoint: Option<PathBuf>,
}

/// The settings of the log, which goes to stderr.
#[derive(Args, Clone, Debug)]
pub struct LogConfig {
    /// The format of log lines.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text, help_heading = "Log")]
    pub log_format: LogFormat,
    /// The level of the log: error, warn, info, debug or trace, also by module, as in `info,flocker_csi::node=debug`.
    #[arg(long, value_name = "FILTER", value_parser = log_filter, default_value = "info", help_heading = "Log")]
    pub log: String,
}

/// The services of a process. Identity is always served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The controller and the node service.
    All,
    /// The controller service.
    Controller,
    /// The node service.
    Node,
}

/// Which volumes are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListScope {
    /// Those of the whole cluster.
    Cluster,
    /// Those whose configured node is this one.
    Node,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Mode {
    /// Returns its name, as the setting has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Controller => "controller",
            Self::Node => "node",
        }
    }

    /// Whether the controller service is served.
    pub(crate) fn serves_controller(self) -> bool {
        matches!(self, Self::All | Self::Controller)
    }

    /// Whether the node service is served.
    pub(crate) fn serves_node(self) -> bool {
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

/// Returns the settings of a group whose defaults and `flags` together are complete.
fn defaults_with<T: Args>(flags: &[String]) -> T {
    let command = T::augment_args(clap::Command::new("defaults").no_binary_name(true));
    let parsed = command
        .try_get_matches_from(flags)
        .and_then(|matches| T::from_arg_matches(&matches));
    parsed.expect("the defaults are valid, and every setting without a default is given")
}

impl NodeConfig {
    /// Returns the settings for a node whose UUID is known.
    pub fn of(node_id: Uuid, mount_root: PathBuf, state_dir: PathBuf) -> Self {
        Self {
            node_id: Some(node_id),
            mount_root,
            state_dir,
            ..defaults_with(&[])
        }
    }
}

impl PluginConfig {
    /// Returns the namespace in which volume names are unique.
    pub(crate) fn namespace(&self) -> Namespace {
        Namespace::new(self.namespace.as_deref().unwrap_or(&self.driver_name))
    }

    /// Returns the topology segment that names a node, where topology is on.
    pub(crate) fn topology_key(&self) -> Option<TopologyKey> {
        match self.topology {
            Topology::Off => None,
            Topology::Hint => Some(TopologyKey::of(&self.driver_name)),
        }
    }

    /// Returns the rules for the sizes of volumes.
    pub(crate) fn sizes(&self) -> SizePolicy {
        SizePolicy {
            default_size: self.default_size,
            allocation_unit: self.allocation_unit,
        }
    }
}
