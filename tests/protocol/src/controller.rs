//! The attachment, which controller and node share (`src/flocker/attach.rs`), and the release of a lease
//! (`src/flocker/cluster/leases.rs`).

use crate::course::{Fate, What};
use crate::flocker::{Reply, is_gone, send};
use crate::orchestrator::{attach_of, set_attach};
use crate::setup::{Flow, Setup};
use crate::state::{Attach, Attachment, Controller, Node, NodeRpc, Request, State};

/// Carries out a step of an attachment or of `ControllerUnpublish`; `None` where it is not possible.
pub(crate) fn step(state: &mut State, setup: &Setup, what: What, node: Node, fate: Fate) -> Option<()> {
    match what {
        What::DetachReads | What::DetachReleases | What::DetachPutsBack => {
            detach(state, setup, what, node, fate)
        }
        _ => attach(state, setup, what, node, fate),
    }
}

/// `Attachment::attempt` and `converged`.
fn attach(state: &mut State, setup: &Setup, what: What, node: Node, fate: Fate) -> Option<()> {
    let lease_first = setup.guards.lease_before_move;
    let next = match (what, attach_of(state, setup, node)?) {
        (What::AttachReads, None) => {
            state.at(node).listed.then_some(())?;
            let moves = state.primary != node;
            match state.lease {
                Some(holder) if holder != node => {
                    (setup.takeover && is_gone(state, holder)).then_some(())?;
                    Attach::TakingOver { moves }
                }
                Some(_) if lease_first => Attach::Leased { moves },
                _ => Attach::Read { moves },
            }
        }
        (What::AttachTakesOver, Some(Attach::TakingOver { moves })) => {
            if send(state, Request::Release, fate)? == Reply::None {
                set_attach(state, setup, node, None);
                return Some(());
            }
            Attach::Read { moves }
        }
        (What::AttachLeases, Some(Attach::Read { moves })) if lease_first || !moves => {
            let unanswered = send(state, Request::Lease(node), fate)? == Reply::None;
            if unanswered || state.lease != Some(node) {
                set_attach(state, setup, node, None);
                return Some(());
            }
            if lease_first {
                Attach::Leased { moves }
            } else {
                Attach::Configured
            }
        }
        (What::AttachMoves, Some(Attach::Leased { moves: true } | Attach::Read { moves: true }))
            if lease_first == matches!(attach_of(state, setup, node), Some(Some(Attach::Leased { .. }))) =>
        {
            if send(state, Request::Move(node), fate)? == Reply::None {
                set_attach(state, setup, node, None);
                return Some(());
            }
            if lease_first {
                Attach::Configured
            } else {
                Attach::Read { moves: false }
            }
        }
        // It waits until no other node reports the volume before. That proves nothing, so the model does not: what is found
        // holds without it.
        (What::AttachEnds, Some(Attach::Leased { moves: false } | Attach::Configured)) => {
            (!setup.guards.attach_reads_last || state.belongs_to(node)).then_some(())?;
            let on = state.at_mut(node);
            match setup.flow {
                Flow::Controller => {
                    on.controller = Controller::Idle;
                    on.attachment = Attachment::Attached;
                }
                Flow::Node => on.rpc = NodeRpc::Waiting,
            }
            return Some(());
        }
        (What::AttachStartsOver, Some(Attach::Leased { moves: false } | Attach::Configured)) => {
            (setup.guards.attach_reads_last && !state.belongs_to(node)).then_some(())?;
            set_attach(state, setup, node, None);
            return Some(());
        }
        _ => return None,
    };
    set_attach(state, setup, node, Some(next));
    Some(())
}

fn detach(state: &mut State, setup: &Setup, what: What, node: Node, fate: Fate) -> Option<()> {
    let on = state.at(node);
    (on.attachment == Attachment::Detaching).then_some(())?;
    let (controller, attachment) = match (what, on.controller) {
        (What::DetachReads, Controller::Idle) => {
            if state.lease == Some(node) || !setup.guards.release_reads_first && state.lease.is_some() {
                let own = state.lease == Some(node);
                (Controller::Releasing { own }, Attachment::Detaching)
            } else {
                (Controller::Idle, Attachment::Detached)
            }
        }
        (What::DetachReleases, Controller::Releasing { .. }) => match release(state, setup, node, fate)? {
            Released::Done => (Controller::Idle, Attachment::Detached),
            Released::HitAnother => (Controller::PuttingBack, Attachment::Detaching),
            Released::Unclear => (Controller::Idle, Attachment::Detaching),
        },
        (What::DetachPutsBack, Controller::PuttingBack) => {
            put_back(state, node.other())?;
            (Controller::Idle, Attachment::Detached)
        }
        _ => return None,
    };
    let on = state.at_mut(node);
    on.controller = controller;
    on.attachment = attachment;
    Some(())
}

/// Acquires a lease again that a DELETE hit: `Cluster::reacquire`.
pub(crate) fn put_back(state: &mut State, holder: Node) -> Option<()> {
    state.stray_lease |= state.lease.is_none();
    send(state, Request::Lease(holder), Fate::Answered)?;
    Some(())
}

/// The outcome of a DELETE.
pub(crate) enum Released {
    /// The lease is released, or no longer existed.
    Done,
    /// It was another node's, which is acquired again.
    HitAnother,
    /// No reply.
    Unclear,
}

/// `Cluster::release_lease_of`, after its read.
pub(crate) fn release(state: &mut State, setup: &Setup, node: Node, fate: Fate) -> Option<Released> {
    let hit = state.lease;
    Some(match send(state, Request::Release, fate)? {
        Reply::None => Released::Unclear,
        Reply::Received if hit == Some(node.other()) && setup.guards.puts_back => Released::HitAnother,
        Reply::Received => Released::Done,
    })
}
