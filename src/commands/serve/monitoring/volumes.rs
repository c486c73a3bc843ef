//! The metrics of the volumes of this node.

use std::fmt;

use crate::host::VolumeCensus;
use crate::telemetry::{Series, count};

/// Writes the figures, or none while they are not known.
pub(super) fn write(out: &mut Series<'_>, volumes: Option<&VolumeCensus>) -> fmt::Result {
    let figure = |of: fn(&VolumeCensus) -> usize| volumes.map(of).map(count);
    out.one(
        "volumes_staged",
        "Volumes that are staged on this node",
        figure(|volumes| volumes.staged),
    )?;
    out.one(
        "volumes_published",
        "Staged volumes that are published at one target or more",
        figure(|volumes| volumes.published),
    )?;
    out.one(
        "volumes_unpinned",
        "Staged volumes of which the plugin does not hold Flocker's mount in place",
        figure(|volumes| volumes.unpinned),
    )?;
    let abnormal = volumes.into_iter().flat_map(|volumes| &volumes.abnormal);
    out.many(
        "volumes_abnormal",
        "Staged volumes that are abnormal, by the reason",
        abnormal.map(|(reason, volumes)| (vec![("reason", reason.name())], count(*volumes))),
    )?;
    out.one(
        "lease_releases_pending",
        "Leases of unstaged volumes that are still to be released because Flocker did not answer",
        figure(|volumes| volumes.releases_pending),
    )?;
    out.one(
        "leftovers_pending",
        "Directories, device nodes and records that are still to be removed after an unmount",
        figure(|volumes| volumes.leftovers),
    )
}
