//! The control service, the agents and the storage.
//!
//! An agent acts upon what it received last and on what it finds on its machine. Its umount is refused while the mount is
//! pinned; it names the device, so a mount of the same device under another name neither stops it nor is seen by it.

use crate::course::{Fate, Step, What};
use crate::setup::{BackEnd, Setup};
use crate::state::{Alias, Controller, Node, NodeRpc, OnNode, Received, Request, Robbed, State};

/// Whether a sender has its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It has.
    Received,
    /// It has not, and does not know whether the request was or will be carried out.
    None,
}

/// Sends a write.
pub(crate) fn send(state: &mut State, request: Request, fate: Fate) -> Option<Reply> {
    match fate {
        Fate::Answered => {
            carry_out(state, request);
            return Some(Reply::Received);
        }
        Fate::ReplyLost => carry_out(state, request),
        Fate::Late => {
            state.late.is_none().then_some(())?;
            state.late = Some(request);
        }
    }
    state.left.losses = state.left.losses.checked_sub(1)?;
    Some(Reply::None)
}

fn carry_out(state: &mut State, request: Request) {
    match request {
        // 409 where another node holds it.
        Request::Lease(node) => state.lease = state.lease.or(Some(node)),
        Request::Move(node) => state.primary = node,
        Request::Release => state.lease = None,
    }
}

/// Carries out a step of the control service, of an agent or of the storage; `None` where it is not possible.
pub(crate) fn step(state: &mut State, setup: &Setup, what: What, node: Node) -> Option<()> {
    if what == What::LateRequestArrives {
        let late = state.late.take()?;
        let before = state.lease;
        carry_out(state, late);
        state.stray_lease |= state.lease.is_some() && state.lease != before;
        return (node == Node::A).then_some(());
    }
    let now = Some(state.sent_to(node));
    let on = state.at_mut(node);
    match what {
        // Only a takeover depends on which nodes are listed, and on nothing else of Flocker's state.
        What::NodeExpires => {
            (setup.takeover && !on.agent && on.listed).then_some(())?;
            on.listed = false;
        }
        What::AgentReceives => {
            (on.agent && on.received != now).then_some(())?;
            on.received = now;
        }
        What::AgentReports => {
            (on.agent && !on.listed).then_some(())?;
            on.listed = true;
        }
        _ => {
            on.agent.then_some(())?;
            converge(state, setup, what, node)?;
        }
    }
    Some(())
}

/// Whether the agent sees its mount. It keys its view by device name, and the last line of the mount table wins.
fn sees_mount(on: &OnNode, setup: &Setup) -> bool {
    on.flockers_mount && (setup.guards.own_device_name || on.alias != Alias::Current)
}

fn converge(state: &mut State, setup: &Setup, what: What, node: Node) -> Option<()> {
    let (attached, leased) = (state.attached, state.lease == Some(node));
    let on = state.at_mut(node);
    let Received {
        is_primary,
        has_lease,
    } = on.received?;
    let sees_mount = sees_mount(on, setup);
    let keeps = is_primary || has_lease && sees_mount;
    match what {
        What::AgentUnmounts => {
            // The plugin's descriptor makes the kernel refuse it: the agent tries again.
            (sees_mount && !keeps && !(on.pin && setup.guards.pin)).then_some(())?;
            on.outrun |= on.alias != Alias::None && leased;
            on.flockers_mount = false;
            on.same_mount = false;
        }
        What::AgentDetaches => {
            (!sees_mount && !keeps && attached == Some(node)).then_some(())?;
            let is_mounted = on.alias == Alias::Current || on.flockers_mount;
            (setup.back_end == BackEnd::AttachesTwice || !is_mounted).then_some(())?;
            if on.alias == Alias::Current {
                on.alias = Alias::Detached;
            }
            on.flockers_mount = false;
            on.same_mount = false;
            state.attached = None;
        }
        What::AgentAttaches => {
            (is_primary && attached.is_none()).then_some(())?;
            state.attached = Some(node);
        }
        What::AgentMounts => {
            (is_primary && attached == Some(node) && !on.flockers_mount).then_some(())?;
            on.flockers_mount = true;
        }
        _ => return None,
    }
    Some(())
}

/// Carries out the death or start of a process or machine; `None` where it is not possible.
pub(crate) fn kill_or_start(state: &mut State, setup: &Setup, what: What, node: Node) -> Option<()> {
    let kills = !matches!(what, What::StartAgent | What::StartPlugin);
    if kills {
        state.left.kills = state.left.kills.checked_sub(1)?;
    }
    if matches!(what, What::KillPlugin | What::Reboot) && state.at(node).rpc == NodeRpc::PuttingBack {
        forgets_to_put_back(state, node.other());
    }
    for each in Node::BOTH {
        if what == What::RestartController && state.at(each).controller == Controller::PuttingBack {
            forgets_to_put_back(state, each.other());
        }
    }
    let on = state.at_mut(node);
    match what {
        What::KillAgent => {
            on.agent.then_some(())?;
            on.agent = false;
            on.received = None;
        }
        What::StartAgent => {
            (!on.agent).then_some(())?;
            on.agent = true;
        }
        What::KillPlugin => {
            on.plugin.then_some(())?;
            crate::plugin::ends(on);
        }
        What::StartPlugin => {
            (!on.plugin).then_some(())?;
            crate::plugin::starts(on, setup);
        }
        What::Reboot => {
            on.agent = false;
            on.received = None;
            on.flockers_mount = false;
            crate::plugin::ends(on);
            crate::plugin::is_rebooted(state, setup, node);
        }
        What::RestartController => {
            (node == Node::A).then_some(())?;
            for on in &mut state.nodes {
                on.controller = Controller::Idle;
            }
        }
        What::RestartControlService => {
            (node == Node::A).then_some(())?;
            for on in &mut state.nodes {
                on.listed = !setup.takeover;
            }
        }
        _ => return None,
    }
    Some(())
}

/// The process dies that would have acquired the lease of a node again.
fn forgets_to_put_back(state: &mut State, holder: Node) {
    let on = state.at_mut(holder);
    if on.robbed == Robbed::ByRace {
        on.robbed = Robbed::Unclear;
    }
}

/// Whether a node counts as gone: `Absence::Gone` in `src/flocker/cluster/absence.rs`. An agent that runs reports long before
/// `takeover_grace` is over.
pub(crate) fn is_gone(state: &State, node: Node) -> bool {
    let on = state.at(node);
    !on.agent && !on.listed && state.at(node.other()).listed
}

/// Notes, after a step, whose lease was taken away under a staged volume.
pub(crate) fn note_robbed(before: &State, step: Step, after: &mut State) {
    let how = |node| match step.what() {
        What::LateRequestArrives => Robbed::Unclear,
        _ if step.fate() != Fate::Answered => Robbed::Unclear,
        What::AttachTakesOver => Robbed::OnPurpose,
        _ if step.at() == node => Robbed::OnPurpose,
        _ if before.at(step.at()).controller == (Controller::Releasing { own: false }) => Robbed::ByMistake,
        _ => Robbed::ByRace,
    };
    let after_lease = after.lease;
    for node in Node::BOTH {
        let lost = before.lease == Some(node) && after.lease != Some(node);
        let on = after.at_mut(node);
        let staged = on.alias != Alias::None || matches!(on.rpc, NodeRpc::Pinned | NodeRpc::Checked);
        // What was unmounted meanwhile stays so when the lease comes back.
        if !staged || after_lease == Some(node) && on.same_mount {
            on.robbed = Robbed::No;
        } else if lost {
            on.robbed = how(node);
        }
        on.outrun &= on.alias != Alias::None;
    }
    let acquired_now = after.stray_lease && !before.stray_lease;
    after.stray_lease &= after.lease.is_some() && (after.lease == before.lease || acquired_now);
}
