//! What `export` is told.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::check;
use crate::config::{FlockerConfig, LogConfig, driver_name};

/// The arguments of `export`.
#[derive(Args, Debug)]
#[command(mut_arg("log", |log| log.default_value("warn")))]
pub struct ExportArgs {
    /// What the volumes are now.
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub from: Source,
    /// From kubernetes-pv: the file with the objects, YAML or JSON, or - for the standard input. From flocker: ids or
    /// names of datasets; unless given all that have a name, but for those that a CSI driver made.
    #[arg(value_name = "FILE|DATASET")]
    pub items: Vec<String>,
    /// Writes the `PersistentVolumeClaim` that goes with each volume too: from kubernetes-pv the one that it is bound to,
    /// wherever that is, and from flocker one of the volume's name, in this namespace.
    #[arg(
        long,
        value_name = "NAMESPACE",
        value_parser = check::namespace,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "default"
    )]
    pub claims: Option<String>,
    /// The storage class of volumes and claims; that of the old volume unless given, else none.
    #[arg(long, value_name = "NAME", value_parser = check::storage_class)]
    pub storage_class: Option<String>,
    /// Has Kubernetes delete a dataset, with its data, when the claim of its volume is deleted. Volumes are retained
    /// otherwise.
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    pub delete_with_claim: bool,
    /// Exports datasets that are in use too: a node holds the lease on them.
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    pub allow_leased: bool,
    /// How the objects are written.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Yaml)]
    pub output: Format,
    /// The name under which Kubernetes knows the plugin.
    #[arg(long, value_name = "NAME", value_parser = driver_name, default_value = "flocker.csi.clusterhq.com")]
    pub driver_name: String,
    /// Reads the plugin's configuration file for how Flocker is reached, and the driver's name.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How Flocker is reached.
    #[command(flatten)]
    pub flocker: FlockerConfig,
    /// What is logged beside the remarks, and how.
    #[command(flatten)]
    pub log: LogConfig,
}

/// What the volumes are that are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// `PersistentVolumes` of Kubernetes' old flocker plugin.
    KubernetesPv,
    /// Datasets, whoever made them.
    Flocker,
}

/// How objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A YAML document for each.
    Yaml,
    /// One list of them in JSON.
    Json,
}
