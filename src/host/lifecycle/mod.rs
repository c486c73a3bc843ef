//! A volume on this node as a state machine: observed, decided, then acted upon.
//!
//! ```text
//!             stage                       publish t
//!  absent ───────────► staging ──► staged ◄────────► published {t …}
//!    ▲                    │           │  unpublish t
//!    │  undone            │ final     │ unstage (no target left)
//!    └────────────────────┴───────────┤
//!    ▲                                ▼
//!    └───────────────────── release pending (the lease is still to be released)
//!
//!  any state ── pin or Flocker's mount lost, another device or mount in its place ──► unhealthy {fault}:
//!               it is not published; staging it again repairs what can be repaired
//!  record of another boot ──► absent, or release pending if this node took the lease
//! ```
//!
//! The state is not stored: [`Evidence`] is what records, mount table and pins say at one moment, [`observe()`] makes a
//! [`VolumeState`] of it, and [`decide()`] returns the next step from that state towards a [`Goal`]. Both are pure. The
//! files beside this folder carry out the steps, and every step ends with a check that it has taken effect.
//!
//! - *absent*: the dataset has neither record nor mount at this staging path.
//! - *staging*: the record is on disk and the last check at Flocker has not succeeded; the plugin's mount may exist.
//! - *staged*: the plugin's mount is visible, on the device of Flocker's mount, and Flocker's mount is pinned.
//! - *published*: the same, and visible at one target or more.
//! - *release pending*: nothing is mounted; this node still holds the lease that staging took.
//! - *unhealthy*: one of these, with a [`Fault`] that excludes a publication.

mod decide;
mod observe;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use host_fs::mount::Mount;
use uuid::Uuid;

pub(crate) use decide::{Action, Afterwards, Goal, Refusal, decide};
pub(crate) use observe::{AliasView, Evidence, Pinned, TargetView, alias_view, observe, target_view};

/// The state of a dataset at one staging path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum AtStaging {
    /// It has neither record nor mount.
    #[default]
    Absent,
    /// The record is of an earlier boot of the machine: nothing of it is mounted.
    OfAnotherBoot {
        /// Whether staging took a lease, which has not been released.
        takes_lease: bool,
    },
    /// It is being staged, or was when an earlier process ended.
    Staging,
    /// It is mounted and pinned.
    Staged,
    /// It is unmounted; the lease that staging took is still to be released.
    ReleasePending,
    /// It has a fault.
    Unhealthy(Fault),
}

/// Why a staged volume cannot be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The record says that it is mounted, and nothing is mounted.
    Unmounted,
    /// This process holds no descriptor on Flocker's mount.
    Unpinned,
    /// The plugin's mount is of another device than the pinned mount of Flocker.
    OtherDevice {
        /// The plugin's mount.
        found: Box<Mount>,
        /// Flocker's.
        pinned: Box<Mount>,
    },
    /// Flocker's mount is pinned, but no longer the visible one at its path.
    FlockerUnmounted {
        /// Flocker's mount as it was when it was pinned.
        pinned: Box<Mount>,
    },
    /// The plugin's mount is hidden under another one.
    Hidden {
        /// The plugin's mount.
        mount: Box<Mount>,
        /// The mount that covers it.
        over: Box<Mount>,
    },
    /// Another mount is where the plugin's belongs.
    Foreign {
        /// What is mounted there.
        found: Box<Mount>,
    },
}

/// A dataset on this node, as seen from one staging path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VolumeState {
    /// Its state at that path.
    pub(crate) at_staging: AtStaging,
    /// The node under whose lease it was staged, where the record names it.
    pub(crate) node: Option<Uuid>,
    /// Whether the staging took the lease, so that unstaging releases it.
    pub(crate) takes_lease: bool,
    /// One target at which it is published.
    pub(crate) published_at: Option<PathBuf>,
    /// Its other stagings on this node.
    pub(crate) elsewhere: Elsewhere,
}

/// The stagings of a dataset at other paths of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// This plugin has it mounted at another staging path: pin and device node are still needed.
    pub(crate) mounted: bool,
    /// This plugin has staged it, or is staging it, at another path: the lease is still needed.
    pub(crate) recorded: bool,
    /// Another plugin of this node has it mounted: the lease, which the node holds, is still needed.
    pub(crate) by_another_plugin: bool,
}

impl Elsewhere {
    /// Whether this node's lease is needed apart from the observed staging path.
    fn needs_lease(self) -> bool {
        self.mounted || self.recorded || self.by_another_plugin
    }
}
