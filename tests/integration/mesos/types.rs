//! Mesos' own messages about volumes, which are the same for both versions of CSI.

use std::collections::HashMap;

use csi_proto::{v0, v1};
use serde::{Deserialize, Serialize};

/// A version of CSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// `csi.v0`: the only version of Mesos 1.6 and 1.7.
    V0,
    /// `csi.v1`: Mesos 1.8 to 1.11 try it first.
    V1,
}

/// The usage of a volume: a file system, because Mesos supports nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Capability {
    pub(crate) fs_type: String,
    pub(crate) mount_flags: Vec<String>,
    /// One of the five modes that both versions number alike.
    pub(crate) mode: i32,
}

/// A volume as a plugin returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeInfo {
    pub(crate) id: String,
    pub(crate) bytes: i64,
    pub(crate) context: HashMap<String, String>,
}

impl Capability {
    /// Returns the usual one: ext4, for one writer.
    pub(crate) fn writer() -> Self {
        Self {
            fs_type: "ext4".to_owned(),
            mount_flags: Vec::new(),
            mode: v1::volume_capability::access_mode::Mode::SingleNodeWriter.into(),
        }
    }

    pub(crate) fn with_mode(mode: v1::volume_capability::access_mode::Mode) -> Self {
        Self {
            mode: mode.into(),
            ..Self::writer()
        }
    }

    pub(crate) fn v0(&self) -> v0::VolumeCapability {
        use v0::volume_capability::{AccessMode, AccessType, MountVolume};
        v0::VolumeCapability {
            access_mode: Some(AccessMode { mode: self.mode }),
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: self.fs_type.clone(),
                mount_flags: self.mount_flags.clone(),
            })),
        }
    }

    pub(crate) fn v1(&self) -> v1::VolumeCapability {
        use v1::volume_capability::{AccessMode, AccessType, MountVolume};
        v1::VolumeCapability {
            access_mode: Some(AccessMode { mode: self.mode }),
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: self.fs_type.clone(),
                mount_flags: self.mount_flags.clone(),
                ..Default::default()
            })),
        }
    }
}

impl From<v0::Volume> for VolumeInfo {
    fn from(volume: v0::Volume) -> Self {
        Self {
            id: volume.id,
            bytes: volume.capacity_bytes,
            context: volume.attributes,
        }
    }
}

impl From<v1::Volume> for VolumeInfo {
    fn from(volume: v1::Volume) -> Self {
        Self {
            id: volume.volume_id,
            bytes: volume.capacity_bytes,
            context: volume.volume_context,
        }
    }
}
