//! From the state of a volume and a goal to the next step.

use std::path::PathBuf;

use host_fs::mount::Mount;
use uuid::Uuid;

use super::{AtStaging, Fault, TargetView, VolumeState};

/// What a request, or the start of the plugin, is to achieve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The volume is to be staged under the lease of this node.
    Stage {
        /// This node.
        node: Uuid,
    },
    /// The volume is to be unmounted from the staging path.
    Unstage,
    /// A staging that ended in a final error is to be undone.
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
    /// The volume is to be unmounted from a target.
    Unpublish {
        /// What is mounted there.
        target: TargetView,
    },
    /// A new process restores a volume that an earlier one staged.
    Restore,
    /// A lease is to be released, if nothing uses it by now.
    Release,
    /// The usage and the condition of the volume are to be reported.
    Report,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The goal is reached.
    Nothing,
    /// Write the record, attach, pin Flocker's mount, check lease and primary, and mount it a second time.
    Stage,
    /// Unmount the alias, remove its directory, then do what follows.
    UnmountAlias {
        /// Whether another mount at the alias's path stays, instead of being an error.
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
    /// Record that the lease is still to be released, and release it.
    MarkReleasePending,
    /// Release the lease, then remove the record.
    ReleaseLease,
    /// Remove the record.
    Forget,
    /// Measure the usage, and report the fault.
    Measure(Option<Fault>),
    /// Answer with an error and change nothing.
    Refuse(Refusal),
}

/// What follows after the alias is unmounted.
///
/// The pin and the device node, which a process holds, are released with this process's last use of the dataset; the
/// lease, which a node holds, with the last use on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Afterwards {
    /// Whether this process releases Flocker's mount and removes its device node.
    pub(crate) unpin: bool,
    /// Whether the lease that staging took is released.
    pub(crate) release_lease: bool,
}

/// Why a goal is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another mount is where the plugin's belongs.
    ForeignAlias(Box<Mount>),
    /// The plugin's mount is hidden.
    Hidden {
        /// The plugin's mount.
        mount: Box<Mount>,
        /// The mount that covers it.
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
    /// The volume is not mounted at the requested path.
    NotMounted(Option<Box<Mount>>),
}

/// Returns the next step from a state towards a goal. No other function decides that.
pub(crate) fn decide(state: &VolumeState, goal: Goal) -> Action {
    match goal {
        Goal::Stage { node } => stage(state, node),
        Goal::Unstage => unstage(state, false),
        Goal::UndoStage => undo_stage(state),
        Goal::Publish {
            target,
            single,
            broken,
        } => publish(state, target, single, broken),
        Goal::Unpublish { target } => unpublish(target),
        Goal::Restore => restore(&state.at_staging),
        Goal::Release => release(state),
        Goal::Report => report(&state.at_staging),
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
            unpin: !state.elsewhere.mounted,
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
        // The record stays: it names the lease to release when the volume is unstaged.
        AtStaging::Absent | AtStaging::Unhealthy(Fault::Unmounted | Fault::Foreign { .. }) => Action::Nothing,
    }
}

fn release(state: &VolumeState) -> Action {
    match state.at_staging {
        AtStaging::ReleasePending if state.elsewhere.needs_lease() => Action::Forget,
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
