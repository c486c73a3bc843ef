//! A volume on this node as a state machine: observed, decided, then acted upon.
//!
//! ```text
//!             stage                       publish t
//!  absent ───────────► staging ──► staged ◄────────► published {t …}
//!    ▲                    │           │  unpublish t
//!    │  undone            │ final     │ unstage (no target left)
//!    └────────────────────┴───────────┤
//!    ▲                                ▼
//!    └───────────────────── release pending (the lease is still to be given back)
//!
//!  any state ── the pin is lost, Flocker's mount is gone, another device or mount is there ──► unhealthy {fault}:
//!               it is not published; staging it again repairs what can be repaired
//!  record of another boot ──► absent, or release pending if this node took the lease
//! ```
//!
//! Nothing of this is remembered: [`Evidence`] is what records, mount table and pins say at one moment, [`observe`] makes
//! a [`VolumeState`] of it, and [`decide`] says what the next step from that state towards a [`Wish`] is. Both are pure.
//! What a step takes is in the files beside this folder, and every step ends by looking whether it has taken effect.
//!
//! - *absent*: nothing of the dataset is known at this staging path.
//! - *staging*: the record is on disk and the last check at Flocker has not been passed; our mount may be there.
//! - *staged*: our mount is visible, on the device of Flocker's mount, and Flocker's mount is pinned.
//! - *published*: the same, and visible at one target or more.
//! - *release pending*: nothing is mounted; the lease that staging took is still this node's.
//! - *unhealthy*: one of these, with a [`Fault`] that a publication must not build on.

mod decide;
mod observe;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use host_fs::mount::Mount;
use uuid::Uuid;

pub(crate) use decide::{Action, Afterwards, Refusal, Wish, decide};
pub(crate) use observe::{AliasView, Evidence, Pinned, TargetView, alias_view, observe, target_view};

/// How far a dataset has come at one staging path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum AtStaging {
    /// Nothing is known of it.
    #[default]
    Absent,
    /// The record is from before the machine was started: nothing of it is mounted.
    OfAnotherBoot {
        /// Whether staging took a lease, which nothing has given back.
        takes_lease: bool,
    },
    /// It is being staged, or was when the process ended.
    Staging,
    /// It is mounted and pinned.
    Staged,
    /// The mount is gone; the lease that staging took is still to be released.
    ReleasePending,
    /// Something is wrong with it.
    Unhealthy(Fault),
}

/// Why a staged volume cannot be relied upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The record says that it is mounted, and nothing is.
    Unmounted,
    /// This process holds no descriptor on Flocker's mount.
    Unpinned,
    /// Our mount is of another device than the one of Flocker that is pinned.
    OtherDevice {
        /// Our mount.
        found: Box<Mount>,
        /// Flocker's.
        pinned: Box<Mount>,
    },
    /// Flocker's mount is pinned, but no longer the visible one at its place.
    FlockerUnmounted {
        /// Flocker's mount as it was when it was pinned.
        pinned: Box<Mount>,
    },
    /// Our mount is out of reach under another one.
    Hidden {
        /// Our mount.
        mount: Box<Mount>,
        /// What lies over it.
        over: Box<Mount>,
    },
    /// Another mount is where ours belongs.
    Foreign {
        /// What is mounted there.
        found: Box<Mount>,
    },
}

/// A dataset on this node, as seen from one staging path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VolumeState {
    /// How far it has come at that path.
    pub(crate) at_staging: AtStaging,
    /// The node whose lease the staging was made under, where the record names it.
    pub(crate) node: Option<Uuid>,
    /// Whether the staging took the lease, so that unstaging releases it.
    pub(crate) takes_lease: bool,
    /// One target at which it is published.
    pub(crate) published_at: Option<PathBuf>,
    /// Who else has it staged on this node.
    pub(crate) elsewhere: Elsewhere,
}

/// Who has a dataset staged at other paths of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// This plugin has it mounted at another staging path: pin and device node are still needed.
    pub(crate) mounted: bool,
    /// This plugin has staged it, or is staging it, at another path: the lease is needed there.
    pub(crate) recorded: bool,
    /// Another plugin of this node has it mounted: the lease is the node's, and needed there.
    pub(crate) by_another_plugin: bool,
}

impl Elsewhere {
    /// Whether this node's lease is needed without the staging path that was looked at.
    fn needs_lease(self) -> bool {
        self.mounted || self.recorded || self.by_another_plugin
    }
}
