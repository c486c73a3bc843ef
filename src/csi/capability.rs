//! Which volume capabilities the plugin supports, in one place for the controller and the node service.

use csi_proto::v1::VolumeCapability;
use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::volume_capability::{AccessType, MountVolume};

use crate::error::{Error, Result, Situation};
use crate::volume::MountFlags;

/// The only file system that Flocker makes.
const FILE_SYSTEM: &str = "ext4";

/// How a volume may be used, as far as the plugin enforces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessMode {
    /// On one node, at any number of targets.
    SingleNode,
    /// On one node, read only, at any number of targets.
    SingleNodeReaderOnly,
    /// On one node, at one target.
    SingleTarget,
}

/// A capability that the plugin supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Where the volume may be used.
    pub access_mode: AccessMode,
    /// The flags its mounts get.
    pub mount_flags: MountFlags,
}

/// The service that checks a capability: the two answer an unsupported one with different codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The controller service.
    Controller,
    /// The node service.
    Node,
}

impl Capability {
    /// Checks one capability.
    ///
    /// # Errors
    /// [`Situation::InvalidArgument`] when it is missing or incomplete; when it is not supported, the same for
    /// the controller and [`Situation::UnsupportedByNode`] for the node. The message names the field, its value
    /// and what is supported.
    pub fn parse(capability: Option<&VolumeCapability>, side: Side) -> Result<Self> {
        Self::parse_with(capability, side, false)
    }

    /// Checks the capability of a node's mount; `readonly` is the request's field of that name.
    ///
    /// # Errors
    /// As [`Self::parse`] for the node.
    pub(crate) fn parse_for_mount(capability: Option<&VolumeCapability>, readonly: bool) -> Result<Self> {
        Self::parse_with(capability, Side::Node, readonly)
    }

    fn parse_with(capability: Option<&VolumeCapability>, side: Side, readonly: bool) -> Result<Self> {
        let missing = |text: &str| Error::new(Situation::InvalidArgument, text);
        let capability = capability.ok_or_else(|| missing("volume_capability is missing"))?;
        let access_type = capability.access_type.as_ref().ok_or_else(|| {
            missing("volume_capability.access_type is missing: ask for \"mount\", the one that is supported")
        })?;
        let number = capability
            .access_mode
            .as_ref()
            .map_or(0, |access_mode| access_mode.mode);
        if number == Mode::Unknown as i32 {
            return Err(missing(
                "volume_capability.access_mode is missing: ask for one of the SINGLE_NODE_* modes",
            ));
        }
        let access_mode = access_mode(number, side)?;
        let readonly = readonly || access_mode == AccessMode::SingleNodeReaderOnly;
        let mount_flags = mount_flags(access_type, side, readonly)?;
        Ok(Self {
            access_mode,
            mount_flags,
        })
    }

    /// Checks the capabilities of a volume in a request to create or validate it.
    ///
    /// # Errors
    /// As [`Self::parse`]; [`Situation::InvalidArgument`] when the list is empty.
    pub(crate) fn parse_all(capabilities: &[VolumeCapability]) -> Result<Vec<Self>> {
        if capabilities.is_empty() {
            let text = "volume_capabilities is empty: at least one is needed";
            return Err(Error::new(Situation::InvalidArgument, text));
        }
        capabilities
            .iter()
            .map(|capability| Self::parse(Some(capability), Side::Controller))
            .collect()
    }
}

/// Logs the mount flags of a request for `volume` that are skipped because they change nothing.
pub(crate) fn log_flags_without_effect<'a>(
    volume: &str,
    capabilities: impl IntoIterator<Item = &'a VolumeCapability>,
) {
    let flags = capabilities
        .into_iter()
        .filter_map(|capability| match &capability.access_type {
            Some(AccessType::Mount(mount)) => Some(mount.mount_flags.as_slice()),
            Some(AccessType::Block(_)) | None => None,
        });
    let skipped: Vec<_> = flags
        .flat_map(|flags| MountFlags::without_effect(flags).map(str::to_owned))
        .collect();
    if !skipped.is_empty() {
        let skipped = skipped.join(", ");
        tracing::info!("Mount flags of volume {volume} that have no effect are skipped: {skipped}");
    }
}

fn access_mode(number: i32, side: Side) -> Result<AccessMode> {
    match Mode::try_from(number) {
        Ok(Mode::SingleNodeWriter | Mode::SingleNodeMultiWriter) => Ok(AccessMode::SingleNode),
        Ok(Mode::SingleNodeReaderOnly) => Ok(AccessMode::SingleNodeReaderOnly),
        Ok(Mode::SingleNodeSingleWriter) => Ok(AccessMode::SingleTarget),
        Ok(mode) => Err(unsupported(
            side,
            format!(
                "volume_capability.access_mode {} is not supported: a Flocker dataset is on one node at a time, \
                 so ask for one of the SINGLE_NODE_* modes",
                mode.as_str_name()
            ),
        )),
        Err(_) => Err(unsupported(
            side,
            format!(
                "volume_capability.access_mode {number} is unknown: ask for one of the SINGLE_NODE_* modes"
            ),
        )),
    }
}

fn mount_flags(access_type: &AccessType, side: Side, readonly: bool) -> Result<MountFlags> {
    let MountVolume {
        fs_type, mount_flags, ..
    } = match access_type {
        AccessType::Mount(mount) => mount,
        AccessType::Block(_) => {
            let text = "volume_capability.access_type \"block\" is not supported: Flocker mounts a file system, so \
                        ask for \"mount\"";
            return Err(unsupported(side, text.to_owned()));
        }
    };
    if !fs_type.is_empty() && fs_type != FILE_SYSTEM {
        let text = format!(
            "volume_capability.mount.fs_type {fs_type:?} is not supported: Flocker makes \"{FILE_SYSTEM}\", so ask \
             for that or leave it empty"
        );
        return Err(unsupported(side, text));
    }
    MountFlags::parse(mount_flags, readonly)
        .map_err(|error| unsupported(side, format!("volume_capability.mount.mount_flags: {error}")))
}

fn unsupported(side: Side, text: String) -> Error {
    let situation = match side {
        Side::Controller => Situation::InvalidArgument,
        Side::Node => Situation::UnsupportedByNode,
    };
    Error::new(situation, text)
}

#[cfg(test)]
mod tests {
    use csi_proto::v1::volume_capability::{AccessMode as ProtoAccessMode, BlockVolume};

    use super::*;

    fn mount(mode: Mode, fs_type: &str, flags: &[&str]) -> VolumeCapability {
        VolumeCapability {
            access_mode: Some(ProtoAccessMode { mode: mode.into() }),
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: fs_type.to_owned(),
                mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
                volume_mount_group: String::new(),
            })),
        }
    }

    #[test]
    fn single_node_mounts_of_ext4_are_supported() {
        for (mode, expected) in [
            (Mode::SingleNodeWriter, AccessMode::SingleNode),
            (Mode::SingleNodeMultiWriter, AccessMode::SingleNode),
            (Mode::SingleNodeReaderOnly, AccessMode::SingleNodeReaderOnly),
            (Mode::SingleNodeSingleWriter, AccessMode::SingleTarget),
        ] {
            for fs_type in ["", "ext4"] {
                let capability = Capability::parse(Some(&mount(mode, fs_type, &["noatime"])), Side::Node);
                assert_eq!(capability.unwrap().access_mode, expected);
            }
        }
    }

    #[test]
    fn what_is_not_supported_is_named_with_what_is() {
        let block = VolumeCapability {
            access_type: Some(AccessType::Block(BlockVolume {})),
            ..mount(Mode::SingleNodeWriter, "", &[])
        };
        let cases = [
            (block, "\"block\""),
            (
                mount(Mode::MultiNodeMultiWriter, "", &[]),
                "MULTI_NODE_MULTI_WRITER",
            ),
            (mount(Mode::SingleNodeWriter, "xfs", &[]), "\"xfs\""),
            (mount(Mode::SingleNodeWriter, "", &["discard"]), "discard"),
        ];
        for (capability, part) in cases {
            for (side, situation) in [
                (Side::Controller, Situation::InvalidArgument),
                (Side::Node, Situation::UnsupportedByNode),
            ] {
                let error = Capability::parse(Some(&capability), side).unwrap_err();
                assert_eq!(error.situation(), situation);
                assert!(error.chain().contains(part), "{}", error.chain());
            }
        }
    }

    #[test]
    fn what_is_missing_is_an_invalid_argument_everywhere() {
        let no_mode = VolumeCapability {
            access_mode: None,
            ..mount(Mode::SingleNodeWriter, "", &[])
        };
        let no_type = VolumeCapability {
            access_type: None,
            ..mount(Mode::SingleNodeWriter, "", &[])
        };
        for capability in [None, Some(&no_mode), Some(&no_type)] {
            let error = Capability::parse(capability, Side::Node).unwrap_err();
            assert_eq!(error.situation(), Situation::InvalidArgument);
        }
        assert_eq!(
            Capability::parse_all(&[]).unwrap_err().situation(),
            Situation::InvalidArgument
        );
    }
}
