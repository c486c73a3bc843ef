//! Volume capabilities, and the contexts of volumes that are created on first use.

use std::collections::HashMap;

use csi_proto::v1;
use csi_proto::v1::volume_capability::{AccessType, MountVolume};
use flocker_csi::csi::capability::{Capability, Side};
use flocker_csi::volume::{MINIMUM_SIZE, VolumeReference, dataset_of};
use serde::Deserialize;

use super::report::Report;

/// The access modes of CSI 1.1, the only ones that Mesos and Marathon know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Mode {
    SingleNodeWriter,
    SingleNodeReaderOnly,
    MultiNodeReaderOnly,
    MultiNodeSingleWriter,
    MultiNodeMultiWriter,
}

impl Mode {
    pub(super) fn is_read_only(self) -> bool {
        matches!(self, Self::SingleNodeReaderOnly | Self::MultiNodeReaderOnly)
    }

    pub(super) fn is_single_node(self) -> bool {
        matches!(self, Self::SingleNodeWriter | Self::SingleNodeReaderOnly)
    }

    fn to_csi(self) -> v1::volume_capability::access_mode::Mode {
        use v1::volume_capability::access_mode::Mode as Csi;
        match self {
            Self::SingleNodeWriter => Csi::SingleNodeWriter,
            Self::SingleNodeReaderOnly => Csi::SingleNodeReaderOnly,
            Self::MultiNodeReaderOnly => Csi::MultiNodeReaderOnly,
            Self::MultiNodeSingleWriter => Csi::MultiNodeSingleWriter,
            Self::MultiNodeMultiWriter => Csi::MultiNodeMultiWriter,
        }
    }
}

/// Whether a task may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Access {
    Rw,
    Ro,
}

/// A capability in Mesos' format.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VolumeCapability {
    mount: Option<Mount>,
    block: Option<Block>,
    pub(super) access_mode: AccessMode,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mount {
    #[serde(default)]
    fs_type: String,
    #[serde(default)]
    mount_flags: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessMode {
    pub(super) mode: Mode,
}

impl VolumeCapability {
    pub(super) fn check(&self, report: &mut Report, at: &str) {
        if self.mount.is_some() == self.block.is_some() {
            return report.refuse(
                at,
                "exactly one of mount and block is needed, and Flocker has no block access",
            );
        }
        self.to_csi().check(report, at, self.access_mode.mode, at);
    }

    /// Returns the capability in the plugin's format.
    pub(super) fn to_csi(&self) -> Asked {
        let mount = self.mount.as_ref();
        Asked::new(
            mount.map(|mount| (mount.fs_type.as_str(), mount.mount_flags.as_slice())),
            self.access_mode.mode,
        )
    }
}

/// A capability in the plugin's format.
pub(super) struct Asked(pub(super) v1::VolumeCapability);

impl Asked {
    /// A file system of that type with those flags, or a block device.
    pub(super) fn new(mount: Option<(&str, &[String])>, mode: Mode) -> Self {
        let access_type = match mount {
            Some((fs_type, flags)) => AccessType::Mount(MountVolume {
                fs_type: fs_type.to_owned(),
                mount_flags: flags.to_vec(),
                ..Default::default()
            }),
            None => AccessType::Block(v1::volume_capability::BlockVolume {}),
        };
        Self(v1::VolumeCapability {
            access_mode: Some(v1::volume_capability::AccessMode {
                mode: mode.to_csi().into(),
            }),
            access_type: Some(access_type),
        })
    }

    /// Checks the limits of CSI, and that the plugin supports the capability.
    pub(super) fn check(&self, report: &mut Report, at: &str, mode: Mode, mode_at: &str) {
        if let Some(AccessType::Mount(mount)) = &self.0.access_type {
            let flags: usize = mount.mount_flags.iter().map(String::len).sum();
            report.require(flags <= 4096, at, "all mount flags together may have 4 KiB");
        }
        if !mode.is_single_node() {
            return report.refuse(
                mode_at,
                "Flocker has a volume on one node at a time: SINGLE_NODE_…",
            );
        }
        if let Err(error) = Capability::parse(Some(&self.0), Side::Controller) {
            report.refuse(at, error.chain());
        }
    }
}

/// Checks the context with which a task names a volume.
pub(super) fn check_context(report: &mut Report, at: &str, id: &str, context: &HashMap<String, String>) {
    for key in context.keys() {
        report.require(
            ["flocker.create", "flocker.size", "flocker.profile"].contains(&key.as_str()),
            format!("{at}.{key}"),
            "the plugin knows flocker.create, flocker.size and flocker.profile",
        );
    }
    match VolumeReference::parse(id, context) {
        Ok(VolumeReference::Name {
            first_use: Some(made),
        }) => report.require(
            made.size
                .is_none_or(|size| size >= MINIMUM_SIZE && size.is_multiple_of(1024)),
            format!("{at}.flocker.size"),
            "no dataset can have this size",
        ),
        Ok(_) => {}
        Err(error) => report.refuse(at, error.chain()),
    }
    if creates(context) {
        report.require(
            dataset_of(id).is_none(),
            format!("{at}.flocker.create"),
            "an id of Flocker's cannot be chosen, so a volume is made under a name",
        );
    } else {
        for key in ["flocker.size", "flocker.profile"] {
            report.require(
                !context.contains_key(key),
                format!("{at}.{key}"),
                "it is for a volume that is made, and flocker.create is not \"true\"",
            );
        }
    }
}

/// Whether a context asks for a volume to be created.
pub(super) fn creates(context: &HashMap<String, String>) -> bool {
    context
        .get("flocker.create")
        .is_some_and(|create| create == "true")
}
