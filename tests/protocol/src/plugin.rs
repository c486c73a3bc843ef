//! The plugin of a node. What it decides, the functions of the program decide ([`flocker_csi::decisions`]).

use flocker_csi::decisions::{Hold, Holder, LeaseVerdict, Next, Primary, Recorded};

use crate::controller::{Released, put_back, release};
use crate::course::{Fate, What};
use crate::decided::{Seen, about_lease, next};
use crate::orchestrator::{stage_was_refused, task_is_over};
use crate::setup::{Flow, Setup};
use crate::state::{Alias, Attachment, Node, NodeRpc, OnNode, Record, State, Task};

/// What the plugin sees of the volume.
fn seen(on: &OnNode, setup: &Setup) -> Seen {
    Seen {
        recorded: match on.record {
            Record::None => Recorded::Nothing,
            Record::Staging => Recorded::Staging,
            Record::Staged => Recorded::Staged,
            Record::ReleasePending => Recorded::ReleasePending,
            Record::OfAnotherBoot => Recorded::OfAnotherBoot,
        },
        takes_lease: setup.flow == Flow::Node,
        alias: on.alias,
        pinned: on.is_pinned(),
        published: on.published(),
    }
}

/// Whether another node may have the volume: `Host::protection`.
fn hold(on: &OnNode, setup: &Setup) -> Hold {
    if on.alias == Alias::None || on.alias == Alias::Current && on.is_pinned() {
        Hold::Pinned
    } else if on.stopped {
        Hold::Stopped
    } else if on.is_replaced() && setup.guards.stops_replaced {
        Hold::Replaced
    } else {
        Hold::Lost
    }
}

/// Carries out a step of a plugin; `None` where it is not possible.
pub(crate) fn step(state: &mut State, setup: &Setup, what: What, node: Node, fate: Fate) -> Option<()> {
    if !state.at(node).plugin {
        return None;
    }
    match what {
        What::WatchReads => watch(state, setup, node),
        What::NodeReleaseReads
        | What::NodeReleases
        | What::NodePutsBack
        | What::NodeReleaseGoesOn
        | What::UnstageUnmounts
        | What::UnstageEnds => unstage(state, setup, what, node, fate),
        _ => stage(state, setup, what, node),
    }
}

fn stage(state: &mut State, setup: &Setup, what: What, node: Node) -> Option<()> {
    let belongs = state.belongs_to(node);
    let (attached, lease) = (state.attached, state.lease);
    let on = state.at_mut(node);
    match (what, on.rpc) {
        (What::StageBegins, NodeRpc::Idle) => {
            let ready = setup.flow == Flow::Node || on.attachment == Attachment::Attached;
            // The kubelet of a node that was detached by force repeats its call too; it is refused.
            // What was stopped, and nothing is published from it: it is unmounted first.
            let stages = on.stopped || next(seen(on, setup)).stage == Next::Stage;
            (on.task == Task::Starting && ready && stages).then_some(())?;
            if on.stopped {
                on.unmounts();
                on.pin = false;
            }
            on.record = Record::Staging;
            on.rpc = match setup.flow {
                Flow::Controller => NodeRpc::Waiting,
                Flow::Node => NodeRpc::Attach(None),
            };
        }
        (What::StagePins, NodeRpc::Waiting) => {
            // What was shut down under Flocker's mount too is refused.
            (on.flockers_mount && !on.flockers_is_stopped).then_some(())?;
            on.pin = true;
            on.rpc = NodeRpc::Pinned;
        }
        (What::StageReads, NodeRpc::Pinned) => {
            (belongs || !setup.guards.stage_reads_last).then_some(())?;
            on.held_elsewhere = false;
            on.rpc = NodeRpc::Checked;
        }
        (What::StageIsRefused, NodeRpc::Waiting | NodeRpc::Pinned) => {
            (setup.guards.stage_reads_last && !belongs).then_some(())?;
            undo_stage(state, setup, node);
        }
        // Its caller's deadline is over while it waits for the lease of another node; repeating that changes nothing.
        (What::StageIsRefused, NodeRpc::Attach(None)) => {
            let holds = on.alias != Alias::None;
            (holds && lease == Some(node.other())).then_some(())?;
            undo_stage(state, setup, node);
        }
        (What::StageMounts, NodeRpc::Checked) => {
            if !on.flockers_mount {
                // Only without a pin: it is found after the mount, which is undone.
                on.rpc = NodeRpc::Waiting;
            } else if on.alias == Alias::Detached {
                // `AliasError::Stale`, a final error.
                undo_stage(state, setup, node);
            } else {
                on.alias = Alias::Current;
                on.record = Record::Staged;
                on.same_mount = true;
                on.rpc = NodeRpc::Idle;
            }
        }
        (What::Publish, NodeRpc::Idle) => {
            let healthy = next(seen(on, setup)).publish == Next::Publish;
            // A file system that is shut down is `broken` (`src/host/mount/health.rs`).
            let allowed = healthy && !on.held_elsewhere && !on.stopped;
            let unguarded = !setup.guards.publishes_healthy_only && on.record == Record::Staged;
            (on.task == Task::Starting && (allowed || unguarded)).then_some(())?;
            on.task = Task::Running;
            let is_flockers = on.alias == Alias::Current && on.flockers_mount && attached == Some(node);
            state.published_another |= !is_flockers;
        }
        (What::Unpublish, NodeRpc::Idle) => {
            let Task::Ended { unstages } = on.task else {
                return None;
            };
            if unstages {
                on.task = Task::Unstaging;
            } else {
                task_is_over(state, node);
            }
        }
        _ => return None,
    }
    Some(())
}

/// A final error leaves nothing: `StagingAttempt::undo`.
fn undo_stage(state: &mut State, setup: &Setup, node: Node) {
    let on = state.at_mut(node);
    on.pin &= on.alias != Alias::None;
    match next(seen(on, setup)).undo_stage {
        Next::Unmount { release_lease, .. } => {
            on.unmounts();
            if release_lease {
                on.record = Record::ReleasePending;
            }
            on.rpc = NodeRpc::Unmounted;
        }
        _ => on.rpc = NodeRpc::Idle,
    }
    stage_was_refused(state, setup, node);
}

fn unstage(state: &mut State, setup: &Setup, what: What, node: Node, fate: Fate) -> Option<()> {
    let lease = state.lease;
    let on = state.at_mut(node);
    match (what, on.rpc) {
        (What::UnstageUnmounts, NodeRpc::Idle) if on.task == Task::Unstaging => {
            match next(seen(on, setup)).unstage {
                Next::Unmount { release_lease, .. } => {
                    on.unmounts();
                    on.rpc = NodeRpc::Unmounted;
                    if release_lease && setup.guards.remembers_releases {
                        on.record = Record::ReleasePending;
                    }
                }
                _ => task_is_over(state, node),
            }
        }
        (What::UnstageEnds, NodeRpc::Unmounted) if setup.flow == Flow::Controller => ended(state, node),
        (What::NodeReleaseReads, NodeRpc::Unmounted) if setup.flow == Flow::Node => {
            if lease == Some(node) {
                on.rpc = NodeRpc::Releasing;
            } else {
                ended(state, node);
            }
        }
        (What::NodeReleases, NodeRpc::Releasing) => match release(state, setup, node, fate)? {
            Released::Done => ended(state, node),
            Released::HitAnother => state.at_mut(node).rpc = NodeRpc::PuttingBack,
            // The answer is OK all the same, and the release is tried again in the background.
            Released::Unclear => {
                let on = state.at_mut(node);
                on.pin = false;
                on.rpc = NodeRpc::Idle;
                if on.task == Task::Unstaging {
                    task_is_over(state, node);
                }
            }
        },
        (What::NodePutsBack, NodeRpc::PuttingBack) => {
            put_back(state, node.other())?;
            ended(state, node);
        }
        (What::NodeReleaseGoesOn, NodeRpc::Idle) if on.record == Record::ReleasePending => {
            on.rpc = NodeRpc::Unmounted;
        }
        _ => return None,
    }
    Some(())
}

/// Nothing of the volume is left here.
fn ended(state: &mut State, node: Node) {
    let on = state.at_mut(node);
    on.pin = false;
    on.record = Record::None;
    on.rpc = NodeRpc::Idle;
    if on.task == Task::Unstaging {
        task_is_over(state, node);
    }
}

/// `LeaseWatch::settle`, under the dataset's lock.
fn watch(state: &mut State, setup: &Setup, node: Node) -> Option<()> {
    let holder = match state.lease {
        None => Holder::NoNode,
        Some(holder) if holder == node => Holder::ThisNode,
        Some(_) => Holder::AnotherNode,
    };
    let is_primary = state.primary == node;
    let on = state.at_mut(node);
    let staged = matches!(on.record, Record::Staging | Record::Staged);
    let held = on.alias != Alias::None || on.pin;
    (on.rpc == NodeRpc::Idle && staged && held).then_some(())?;
    let guards = &setup.guards;
    let takes_lease = setup.flow == Flow::Node || !guards.leaves_controllers_leases;
    // Without the guard the lease alone decides.
    let primary = if is_primary || !guards.asks_primary {
        Primary::ThisNode
    } else {
        Primary::AnotherNode
    };
    // What it reads shows that another node may have the volume; a mount of Flocker's that is only missing does not.
    let shows = match holder {
        Holder::ThisNode => on.is_replaced(),
        Holder::NoNode => on.is_replaced() || !is_primary,
        Holder::AnotherNode => true,
    };
    on.unseen &= !shows;
    let used = on.published();
    match about_lease(holder, primary, takes_lease, used, hold(on, setup)) {
        LeaseVerdict::Fine => on.held_elsewhere = false,
        LeaseVerdict::HeldElsewhere => on.held_elsewhere = true,
        LeaseVerdict::StopWrites => {
            on.held_elsewhere = true;
            on.stopped |= guards.stops_writes;
        }
        LeaseVerdict::LeaseAgain if guards.leases_again => state.lease = Some(node),
        LeaseVerdict::LetGo if guards.lets_go => {
            on.unmounts();
            on.pin = false;
            on.record = Record::None;
        }
        LeaseVerdict::NotLeased | LeaseVerdict::LeaseAgain | LeaseVerdict::LetGo => {}
    }
    Some(())
}

/// The process ends: what it holds goes, what it has mounted and written stays.
pub(crate) fn ends(on: &mut OnNode) {
    on.plugin = false;
    on.pin = false;
    on.unseen = true;
    on.held_elsewhere = false;
    on.rpc = NodeRpc::Idle;
}

/// The process starts: `Host::restore`.
pub(crate) fn starts(on: &mut OnNode, setup: &Setup) {
    on.plugin = true;
    match next(seen(on, setup)).restore {
        // The mount that was pinned, and no other in its place.
        Next::PinAgain => {
            let same = on.flockers_mount && on.same_mount && on.alias == Alias::Current;
            on.pin = same && setup.guards.pins_again;
        }
        Next::MarkReleasePending if setup.guards.remembers_releases => on.record = Record::ReleasePending,
        Next::Forget | Next::MarkReleasePending => on.record = Record::None,
        _ => {}
    }
}

/// The machine restarts, with nothing mounted. The orchestrator starts its task again, or gives it up where only nodes attach.
pub(crate) fn is_rebooted(state: &mut State, setup: &Setup, node: Node) {
    let on = state.at_mut(node);
    on.unmounts();
    on.record = match on.record {
        Record::Staging | Record::Staged => Record::OfAnotherBoot,
        record => record,
    };
    match (on.task, setup.flow) {
        (Task::Starting | Task::Running, Flow::Controller) => on.task = Task::Starting,
        (Task::None, _) => {}
        _ => task_is_over(state, node),
    }
}
