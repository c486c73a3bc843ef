//! From the state of a volume and a wish to the next step.

use std::path::PathBuf;

use host_fs::mount::Mount;
use uuid::Uuid;

use super::{AtStaging, Fault, TargetView, VolumeState};

/// What a caller, or the start of the plugin, asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The volume is to be staged under the lease of this node.
    Stage {
        /// This node.
        node: Uuid,
    },
    /// The volume is to be gone from the staging path.
    Unstage,
    /// What a staging has done is to be undone, as it ended in a final error.
    UndoStage,
    /// The volume is to be visible at a target.
    Publish {
        /// What is mounted there.
        target: TargetView,
        /// Whether the volume may have no second target.
        single: bool,
        /// Why its file system cannot serve this publication, if that is known.
        broken: Option<String>,
    },
    /// The volume is to be gone from a target.
    Unpublish {
        /// What is mounted there.
        target: TargetView,
    },
    /// A new process takes over what an earlier one had staged.
    Restore,
    /// A lease is to be released, if that is still due.
    Release,
    /// The usage and the condition of the volume are to be reported.
    Report,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Everything is as it should be.
    Nothing,
    /// Write the record, attach, pin Flocker's mount, check the right to it, and mount it a second time.
    Stage,
    /// Unmount the alias, remove its directory, then what is said.
    UnmountAlias {
        /// Whether another mount at that place stays, instead of being an error.
        leave_foreign: bool,
        /// What follows.
        afterwards: Afterwards,
    },
    /// Bind the alias to the target.
    Bind,
    /// Unmount the target, and leave the directory as its owner expects it.
    UnmountTarget,
    /// Leave the directory of the target, where nothing is mounted, as its owner expects it.
    LeaveTarget,
    /// Pin Flocker's mount again.
    PinAgain,
    /// Note that the lease is still to be released, and release it.
    MarkReleasePending,
    /// Release the lease, then forget the record.
    ReleaseLease,
    /// Forget the record.
    Forget,
    /// Measure the usage, and report the fault.
    Measure(Option<Fault>),
    /// Answer with an error and change nothing.
    Refuse(Refusal),
}

/// What follows when the alias is unmounted.
///
/// What a process holds, pin and device node, goes with this process's last use of the dataset; the lease, which a node
/// holds, goes with the last use on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Afterwards {
    /// Whether this process lets go of Flocker's mount and removes its device node.
    pub(crate) let_go: bool,
    /// Whether the lease that staging took is released.
    pub(crate) release_lease: bool,
}

/// Why a wish is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another mount is where ours belongs.
    ForeignAlias(Box<Mount>),
    /// Our mount is out of reach.
    Hidden {
        /// Our mount.
        mount: Box<Mount>,
        /// What lies over it.
        over: Box<Mount>,
    },
    /// The volume is staged here under the lease of another node.
    StagedAs(Uuid),
    /// The lease of another node is still to be released.
    ReleaseDueTo(Uuid),
    /// The volume is still published.
    StillPublished(PathBuf),
    /// The volume is not staged, or something is wrong with it.
    NotStaged(Option<Fault>),
    /// The file system cannot serve the publication.
    Broken(String),
    /// The volume is published at another target, and may have no second one.
    SecondTarget(PathBuf),
    /// The volume is published at the target with other attributes.
    PublishedOtherwise(Box<Mount>),
    /// The volume is published at the target from another device.
    PublishedFromOtherDevice(Box<Mount>),
    /// Another mount is at the target.
    ForeignTarget(Box<Mount>),
    /// The volume is not mounted at the path that was asked about.
    NotMounted(Option<Box<Mount>>),
}

/// Returns the next step from a state towards a wish. The only place where that is decided.
pub(crate) fn decide(state: &VolumeState, wish: Wish) -> Action {
    match wish {
        Wish::Stage { node } => stage(state, node),
        Wish::Unstage => unstage(state, false),
        Wish::UndoStage => undo_stage(state),
        Wish::Publish {
            target,
            single,
            broken,
        } => publish(state, target, single, broken),
        Wish::Unpublish { target } => unpublish(target),
        Wish::Restore => restore(&state.at_staging),
        Wish::Release => release(state),
        Wish::Report => report(&state.at_staging),
    }
}

fn stage(state: &VolumeState, node: Uuid) -> Action {
    let other_node = state.node.filter(|of_record| *of_record != node);
    match (&state.at_staging, other_node) {
        (AtStaging::Unhealthy(Fault::Foreign { found }), _) => {
            Action::Refuse(Refusal::ForeignAlias(found.clone()))
        }
        (AtStaging::Unhealthy(Fault::Hidden { mount, over }), _) => Action::Refuse(Refusal::Hidden {
            mount: mount.clone(),
            over: over.clone(),
        }),
        (AtStaging::ReleasePending, Some(other)) => Action::Refuse(Refusal::ReleaseDueTo(other)),
        (AtStaging::Staging | AtStaging::Staged | AtStaging::Unhealthy(_), Some(other)) => {
            Action::Refuse(Refusal::StagedAs(other))
        }
        (AtStaging::Staged, None) => Action::Nothing,
        (AtStaging::Absent | AtStaging::OfAnotherBoot { .. }, _)
        | (AtStaging::Staging | AtStaging::ReleasePending | AtStaging::Unhealthy(_), None) => Action::Stage,
    }
}

fn unstage(state: &VolumeState, leave_foreign: bool) -> Action {
    if state.at_staging == AtStaging::ReleasePending {
        return Action::Nothing;
    }
    if let Some(at) = &state.published_at
        && !state.elsewhere.mounted
    {
        return Action::Refuse(Refusal::StillPublished(at.clone()));
    }
    match &state.at_staging {
        AtStaging::Unhealthy(Fault::Hidden { mount, over }) => {
            return Action::Refuse(Refusal::Hidden {
                mount: mount.clone(),
                over: over.clone(),
            });
        }
        AtStaging::Unhealthy(Fault::Foreign { found }) if !leave_foreign => {
            return Action::Refuse(Refusal::ForeignAlias(found.clone()));
        }
        _ => {}
    }
    Action::UnmountAlias {
        leave_foreign,
        afterwards: Afterwards {
            let_go: !state.elsewhere.mounted,
            release_lease: state.takes_lease && !state.elsewhere.needs_lease(),
        },
    }
}

fn undo_stage(state: &VolumeState) -> Action {
    match state.at_staging {
        // A staging that has begun is no longer `Staged`. This one ended before, and what is mounted is an earlier one's.
        AtStaging::Staged
        | AtStaging::Unhealthy(
            Fault::Unpinned | Fault::OtherDevice { .. } | Fault::FlockerUnmounted { .. },
        ) => Action::Nothing,
        _ => unstage(state, true),
    }
}

fn publish(state: &VolumeState, target: TargetView, single: bool, broken: Option<String>) -> Action {
    match &state.at_staging {
        AtStaging::Staged => {}
        AtStaging::Unhealthy(fault) => return Action::Refuse(Refusal::NotStaged(Some(fault.clone()))),
        AtStaging::Absent
        | AtStaging::OfAnotherBoot { .. }
        | AtStaging::Staging
        | AtStaging::ReleasePending => return Action::Refuse(Refusal::NotStaged(None)),
    }
    match target {
        TargetView::AsAsked(_) => Action::Nothing,
        TargetView::Otherwise(found) => Action::Refuse(Refusal::PublishedOtherwise(found)),
        TargetView::OtherDevice(found) => Action::Refuse(Refusal::PublishedFromOtherDevice(found)),
        TargetView::Foreign(found) => Action::Refuse(Refusal::ForeignTarget(found)),
        TargetView::Hidden { mount, over } => Action::Refuse(Refusal::Hidden { mount, over }),
        TargetView::Nothing => match (broken, &state.published_at) {
            (Some(why), _) => Action::Refuse(Refusal::Broken(why)),
            (None, Some(at)) if single => Action::Refuse(Refusal::SecondTarget(at.clone())),
            (None, _) => Action::Bind,
        },
    }
}

fn unpublish(target: TargetView) -> Action {
    match target {
        TargetView::Nothing => Action::LeaveTarget,
        TargetView::AsAsked(_) | TargetView::Otherwise(_) | TargetView::OtherDevice(_) => {
            Action::UnmountTarget
        }
        TargetView::Foreign(found) => Action::Refuse(Refusal::ForeignTarget(found)),
        TargetView::Hidden { mount, over } => Action::Refuse(Refusal::Hidden { mount, over }),
    }
}

fn restore(at_staging: &AtStaging) -> Action {
    match at_staging {
        AtStaging::ReleasePending => Action::ReleaseLease,
        // No orchestrator unstages after a reboot, so the lease would lock the volume to this node permanently.
        AtStaging::OfAnotherBoot { takes_lease: true } => Action::MarkReleasePending,
        AtStaging::OfAnotherBoot { takes_lease: false } => Action::Forget,
        AtStaging::Staging
        | AtStaging::Staged
        | AtStaging::Unhealthy(
            Fault::Unpinned
            | Fault::OtherDevice { .. }
            | Fault::FlockerUnmounted { .. }
            | Fault::Hidden { .. },
        ) => Action::PinAgain,
        // The record stays: it is what says which lease to release when the volume is unstaged.
        AtStaging::Absent | AtStaging::Unhealthy(Fault::Unmounted | Fault::Foreign { .. }) => Action::Nothing,
    }
}

fn release(state: &VolumeState) -> Action {
    match state.at_staging {
        AtStaging::ReleasePending if state.elsewhere.recorded => Action::Forget,
        AtStaging::ReleasePending => Action::ReleaseLease,
        _ => Action::Nothing,
    }
}

fn report(at_staging: &AtStaging) -> Action {
    match at_staging {
        AtStaging::Staged => Action::Measure(None),
        AtStaging::Unhealthy(Fault::Foreign { found }) => {
            Action::Refuse(Refusal::NotMounted(Some(found.clone())))
        }
        AtStaging::Unhealthy(Fault::Unmounted)
        | AtStaging::Absent
        | AtStaging::OfAnotherBoot { .. }
        | AtStaging::Staging
        | AtStaging::ReleasePending => Action::Refuse(Refusal::NotMounted(None)),
        AtStaging::Unhealthy(fault) => Action::Measure(Some(fault.clone())),
    }
}
