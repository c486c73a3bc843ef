//! From what records, mount table and pins say to the state of a volume.

use std::path::PathBuf;

use host_fs::mount::{AttributeChange, Mount};
use uuid::Uuid;

use super::{AtStaging, Elsewhere, Fault, VolumeState};
use crate::host::records::{Record, RecordState};

/// What was found of a dataset, observed from one staging path.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    /// The record of the dataset at that path.
    pub(crate) record: Option<Record>,
    /// The id of this boot of the machine.
    pub(crate) boot: Uuid,
    /// What is mounted where staging mounts the dataset.
    pub(crate) alias: AliasView,
    /// Whether Flocker's mount is held.
    pub(crate) pin: Pinned,
    /// One target at which the dataset is published.
    pub(crate) published_at: Option<PathBuf>,
    /// Its other stagings on this node.
    pub(crate) elsewhere: Elsewhere,
}

/// What is mounted where staging mounts a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AliasView {
    /// Nothing.
    Nothing,
    /// The plugin's mount, which is the visible one.
    Ours(Box<Mount>),
    /// The plugin's mount, hidden under another one.
    Hidden {
        /// The plugin's mount.
        mount: Box<Mount>,
        /// What lies over it.
        over: Box<Mount>,
    },
    /// Another mount, and none of the plugin's.
    Foreign(Box<Mount>),
}

/// Whether this process holds Flocker's mount of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pinned {
    /// It does not.
    No,
    /// It does, and the mount is the visible one at its path.
    InPlace(Box<Mount>),
    /// It does, but the mount was detached, or lies under another one.
    Displaced(Box<Mount>),
}

/// What is mounted at a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetView {
    /// Nothing.
    Nothing,
    /// The plugin's mount of the dataset, with the requested attributes, on the expected device.
    AsAsked(Box<Mount>),
    /// The plugin's mount of the dataset, with other attributes.
    Otherwise(Box<Mount>),
    /// The plugin's mount of the dataset, on another device than the one where it is staged now.
    OtherDevice(Box<Mount>),
    /// The plugin's mount of the dataset, hidden under another one.
    Hidden {
        /// The plugin's mount.
        mount: Box<Mount>,
        /// What lies over it.
        over: Box<Mount>,
    },
    /// Another mount.
    Foreign(Box<Mount>),
}

/// Returns the state of a dataset, given what was found.
pub(crate) fn observe(evidence: Evidence) -> VolumeState {
    let record = evidence.record.as_ref();
    VolumeState {
        node: record.and_then(|record| record.node_id),
        takes_lease: record.is_some_and(|record| record.takes_lease),
        at_staging: at_staging(record, evidence.boot, evidence.alias, evidence.pin),
        published_at: evidence.published_at,
        elsewhere: evidence.elsewhere,
    }
}

fn at_staging(record: Option<&Record>, boot: Uuid, alias: AliasView, pin: Pinned) -> AtStaging {
    let recorded = match record {
        Some(record) if record.state == RecordState::ReleasePending => return AtStaging::ReleasePending,
        Some(record) if record.boot_id != boot => {
            return AtStaging::OfAnotherBoot {
                takes_lease: record.takes_lease,
            };
        }
        Some(record) => Some(record.state),
        None => None,
    };
    let mount = match alias {
        AliasView::Foreign(found) => return AtStaging::Unhealthy(Fault::Foreign { found }),
        AliasView::Hidden { mount, over } => return AtStaging::Unhealthy(Fault::Hidden { mount, over }),
        AliasView::Nothing => None,
        AliasView::Ours(mount) => Some(mount),
    };
    match (recorded, mount) {
        (None, None) => AtStaging::Absent,
        (Some(RecordState::Staging), _) => AtStaging::Staging,
        (Some(_), None) => AtStaging::Unhealthy(Fault::Unmounted),
        // Where the record was lost, the mount proves that the dataset was staged.
        (None | Some(_), Some(mount)) => fault(mount, pin).map_or(AtStaging::Staged, AtStaging::Unhealthy),
    }
}

/// Returns why a mount of the plugin may not show the file system of Flocker's mount.
///
/// The kernel reuses the ids of mounts and the numbers of devices; the pinned mount cannot be replaced unnoticed.
fn fault(mount: Box<Mount>, pin: Pinned) -> Option<Fault> {
    match pin {
        Pinned::No => Some(Fault::Unpinned),
        Pinned::InPlace(pinned) | Pinned::Displaced(pinned) if pinned.device != mount.device => {
            Some(Fault::OtherDevice { found: mount, pinned })
        }
        Pinned::Displaced(pinned) => Some(Fault::FlockerUnmounted { pinned }),
        Pinned::InPlace(_) => None,
    }
}

/// Returns what is mounted at the path of an alias, given the mounts there, the visible one last.
pub(crate) fn alias_view(layers: Vec<Mount>, is_ours: impl Fn(&Mount) -> bool) -> AliasView {
    let mut from_top = layers.into_iter().rev();
    let Some(top) = from_top.next() else {
        return AliasView::Nothing;
    };
    if is_ours(&top) {
        return AliasView::Ours(Box::new(top));
    }
    match from_top.find(is_ours) {
        Some(mount) => AliasView::Hidden {
            mount: Box::new(mount),
            over: Box::new(top),
        },
        None => AliasView::Foreign(Box::new(top)),
    }
}

/// Classifies the visible mount at a target of a dataset whose alias is `staged`.
pub(crate) fn target_view(
    top: Option<Mount>,
    is_ours: impl Fn(&Mount) -> bool,
    staged: &Mount,
    asked: AttributeChange,
) -> TargetView {
    let Some(top) = top.map(Box::new) else {
        return TargetView::Nothing;
    };
    if !is_ours(&top) {
        TargetView::Foreign(top)
    } else if top.device != staged.device {
        TargetView::OtherDevice(top)
    } else if asked.describes(&top) {
        TargetView::AsAsked(top)
    } else {
        TargetView::Otherwise(top)
    }
}
