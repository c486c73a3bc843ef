//! The arguments of `export`.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::check;
use crate::config::{FlockerConfig, LogConfig, driver_name};

/// The arguments of `export`.
#[derive(Args, Debug)]
#[command(mut_arg("log", |log| log.default_value("warn")))]
pub struct ExportArgs {
    /// What the volumes are today.
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub(super) from: Source,
    /// From kubernetes-pv: the file with the objects, YAML or JSON, or - for the standard input. From flocker: ids or
    /// names of datasets; by default all that have a name, except those that a CSI driver created.
    #[arg(value_name = "FILE|DATASET")]
    pub(super) items: Vec<String>,
    /// Also writes the `PersistentVolumeClaim` of each volume: from kubernetes-pv the claim that it is bound to, in that
    /// claim's own namespace; from flocker a claim with the volume's name, in this namespace.
    #[arg(
        long,
        value_name = "NAMESPACE",
        value_parser = check::namespace,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "default"
    )]
    pub(super) claims: Option<String>,
    /// The storage class of volumes and claims; by default that of the old volume, else none.
    #[arg(long, value_name = "NAME", value_parser = check::storage_class)]
    pub(super) storage_class: Option<String>,
    /// Makes Kubernetes delete a dataset, with its data, when the claim of its volume is deleted. By default volumes are
    /// retained.
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    pub(super) delete_with_claim: bool,
    /// Also exports datasets that are in use, that is, on which a node holds the lease.
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    pub(super) allow_leased: bool,
    /// The format of the objects.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Yaml)]
    pub(super) output: Format,
    /// The name by which Kubernetes identifies the plugin.
    #[arg(long, value_name = "NAME", value_parser = driver_name, default_value = "flocker.csi.clusterhq.com")]
    pub(super) driver_name: String,
    /// Reads the address and certificates of Flocker, and the driver's name, from the plugin's configuration file.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The address and certificates of Flocker.
    #[command(flatten)]
    pub(super) flocker: FlockerConfig,
    /// What is logged beside the remarks, and in which format.
    #[command(flatten)]
    pub(crate) log: LogConfig,
}

/// What the exported volumes are today.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Source {
    /// `PersistentVolumes` of Kubernetes' in-tree flocker plugin.
    KubernetesPv,
    /// Datasets of any client.
    Flocker,
}

/// The format of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A YAML document for each object.
    Yaml,
    /// One list of all objects in JSON.
    Json,
}
