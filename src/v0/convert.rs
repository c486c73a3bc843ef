//! Messages that both the controller and the node service use.

use csi_proto::v0::{
    Topology, TopologyRequirement, VolumeCapability, VolumeContentSource, volume_capability,
};
use csi_proto::v1;

/// Translates a capability. The modes have the same numbers.
pub(super) fn capability(capability: VolumeCapability) -> v1::VolumeCapability {
    use v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
    let access_type = capability.access_type.map(|access_type| match access_type {
        volume_capability::AccessType::Block(volume_capability::BlockVolume {}) => {
            AccessType::Block(BlockVolume {})
        }
        volume_capability::AccessType::Mount(mount) => AccessType::Mount(MountVolume {
            fs_type: mount.fs_type,
            mount_flags: mount.mount_flags,
            volume_mount_group: String::new(),
        }),
    });
    v1::VolumeCapability {
        access_mode: capability.access_mode.map(|mode| AccessMode { mode: mode.mode }),
        access_type,
    }
}

pub(super) fn capabilities(capabilities: Vec<VolumeCapability>) -> Vec<v1::VolumeCapability> {
    capabilities.into_iter().map(capability).collect()
}

/// Translates the content source of a volume.
pub(super) fn source(source: VolumeContentSource) -> v1::VolumeContentSource {
    use csi_proto::v0::volume_content_source::Type;
    use v1::volume_content_source as to;
    v1::VolumeContentSource {
        r#type: source.r#type.map(|Type::Snapshot(snapshot)| {
            to::Type::Snapshot(to::SnapshotSource {
                snapshot_id: snapshot.id,
            })
        }),
    }
}

pub(super) fn requirement(requirement: TopologyRequirement) -> v1::TopologyRequirement {
    let all = |topologies: Vec<Topology>| topologies.into_iter().map(topology).collect();
    v1::TopologyRequirement {
        requisite: all(requirement.requisite),
        preferred: all(requirement.preferred),
    }
}

pub(super) fn topology(topology: Topology) -> v1::Topology {
    v1::Topology {
        segments: topology.segments,
    }
}

/// Translates a topology of an answer.
pub(super) fn topology_back(topology: v1::Topology) -> Topology {
    Topology {
        segments: topology.segments,
    }
}

/// Checks translations by encoding: a field with one number in both versions is read as the other version's field.
#[cfg(test)]
pub(super) mod testing {
    use prost::Message;

    /// Encodes a message of one version and decodes it as the other version's message.
    pub(in crate::v0) fn reads_as<T: Message + Default>(message: &impl Message) -> T {
        T::decode(message.encode_to_vec().as_slice()).unwrap()
    }

    pub(in crate::v0) fn map(key: &str) -> std::collections::HashMap<String, String> {
        [(key.to_owned(), format!("value of {key}"))].into()
    }

    pub(in crate::v0) fn mount_capability() -> csi_proto::v0::VolumeCapability {
        use csi_proto::v0::volume_capability::{AccessMode, AccessType, MountVolume};
        csi_proto::v0::VolumeCapability {
            access_mode: Some(AccessMode { mode: 4 }),
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: "ext4".to_owned(),
                mount_flags: vec!["noatime".to_owned()],
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use csi_proto::v0::volume_capability::{AccessType, BlockVolume};
    use csi_proto::v0::volume_content_source::{SnapshotSource, Type};

    use super::testing::{map, mount_capability, reads_as};
    use super::*;

    #[test]
    fn messages_of_both_services_keep_every_field() {
        let block = VolumeCapability {
            access_type: Some(AccessType::Block(BlockVolume {})),
            ..mount_capability()
        };
        for from in [mount_capability(), block, VolumeCapability::default()] {
            assert_eq!(capability(from.clone()), reads_as(&from));
        }
        let snapshot = VolumeContentSource {
            r#type: Some(Type::Snapshot(SnapshotSource {
                id: "snapshot".to_owned(),
            })),
        };
        assert_eq!(source(snapshot.clone()), reads_as(&snapshot));
        let place = Topology {
            segments: map("zone"),
        };
        let wanted = TopologyRequirement {
            requisite: vec![place.clone()],
            preferred: vec![place.clone(), Topology::default()],
        };
        assert_eq!(requirement(wanted.clone()), reads_as(&wanted));
        assert_eq!(topology_back(topology(place.clone())), place);
    }
}
