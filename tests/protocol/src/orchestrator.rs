//! What the orchestrator asks for. It repeats a call until it succeeds, and begins with `ControllerPublish` again where `NodeStage`
//! says that the volume is not attached.

use crate::course::What;
use crate::setup::{Flow, Setup};
use crate::state::{Alias, Attach, Attachment, Controller, Node, NodeRpc, Record, State, Task};

/// Places a task on a node.
pub(crate) fn place(state: &mut State, setup: &Setup, node: Node) {
    let on = state.at_mut(node);
    on.task = Task::Starting;
    if setup.flow == Flow::Controller {
        on.attachment = Attachment::Attaching;
    }
}

/// Carries out a step of the orchestrator; `None` where it is not possible.
pub(crate) fn step(state: &mut State, setup: &Setup, what: What, node: Node) -> Option<()> {
    if what == What::CleanUp {
        return clean_up(state, setup, node);
    }
    state.left.operations = state.left.operations.checked_sub(1)?;
    operation(state, setup, what, node)
}

fn operation(state: &mut State, setup: &Setup, what: What, node: Node) -> Option<()> {
    let controllers = setup.flow == Flow::Controller;
    let on = *state.at(node);
    match what {
        What::Place => {
            // One task of the volume on a node at a time.
            (on.task == Task::None && on.attachment == Attachment::Detached).then_some(())?;
            place(state, setup, node);
        }
        What::Drop => end(state, node, true)?,
        // Where nodes attach, no orchestrator leaves NodeUnstage out: it would keep the lease.
        What::DropStaged => {
            (controllers && on.task == Task::Running).then_some(())?;
            end(state, node, false)?;
        }
        What::DetachByForce => {
            let attached = matches!(on.attachment, Attachment::Attaching | Attachment::Attached);
            let staged = !controllers && on.attachment == Attachment::Detached && on.task != Task::None;
            (attached || staged).then_some(())?;
            detach(state, node);
        }
        _ => return None,
    }
    Some(())
}

/// The kubelet of a node that was cut off ends what it still runs.
fn clean_up(state: &mut State, setup: &Setup, node: Node) -> Option<()> {
    let on = state.at(node);
    let forced = matches!(on.attachment, Attachment::Detaching | Attachment::Detached);
    let runs = matches!(on.task, Task::Starting | Task::Running);
    (setup.flow == Flow::Controller && forced && runs).then_some(())?;
    end(state, node, true)
}

/// Ends the task, or the attempt to start it. `NodeUnstage` cancels a `NodeStage` that waits, and waits for one that mounts.
fn end(state: &mut State, node: Node, unstages: bool) -> Option<()> {
    let on = state.at_mut(node);
    match on.task {
        Task::Running => on.task = Task::Ended { unstages },
        Task::Starting => {
            matches!(on.rpc, NodeRpc::Idle | NodeRpc::Attach(_) | NodeRpc::Waiting).then_some(())?;
            on.rpc = NodeRpc::Idle;
            on.task = Task::Unstaging;
            // Nothing reached the node.
            if on.record == Record::None && on.alias == Alias::None {
                task_is_over(state, node);
            }
        }
        Task::None | Task::Ended { .. } | Task::Unstaging => return None,
    }
    Some(())
}

/// The node has nothing of the volume any more, as far as the orchestrator knows.
pub(crate) fn task_is_over(state: &mut State, node: Node) {
    let on = state.at_mut(node);
    on.task = Task::None;
    if matches!(on.attachment, Attachment::Attaching | Attachment::Attached) {
        detach(state, node);
    }
}

/// `ControllerUnpublish`, which cancels a `ControllerPublish` for the same node.
fn detach(state: &mut State, node: Node) {
    let on = state.at_mut(node);
    on.attachment = Attachment::Detaching;
    if matches!(on.controller, Controller::Attach(_)) {
        on.controller = Controller::Idle;
    }
}

/// `NodeStage` was refused: the orchestrator attaches again, unless it has detached.
pub(crate) fn stage_was_refused(state: &mut State, setup: &Setup, node: Node) {
    let on = state.at_mut(node);
    if setup.attaches_again && on.attachment == Attachment::Attached {
        on.attachment = Attachment::Attaching;
    }
}

/// Returns the running attachment for a node.
#[allow(
    clippy::option_option,
    reason = "none runs, or one that has not read anything yet"
)]
pub(crate) fn attach_of(state: &State, setup: &Setup, node: Node) -> Option<Option<Attach>> {
    let on = state.at(node);
    match (setup.flow, on.controller, on.rpc) {
        (Flow::Controller, Controller::Idle, _) if on.attachment == Attachment::Attaching => Some(None),
        (Flow::Controller, Controller::Attach(attach), _) => Some(Some(attach)),
        (Flow::Node, _, NodeRpc::Attach(attach)) if on.plugin => Some(attach),
        _ => None,
    }
}

/// Sets how far the attachment for a node is.
pub(crate) fn set_attach(state: &mut State, setup: &Setup, node: Node, attach: Option<Attach>) {
    let on = state.at_mut(node);
    match setup.flow {
        Flow::Controller => on.controller = attach.map_or(Controller::Idle, Controller::Attach),
        Flow::Node => on.rpc = NodeRpc::Attach(attach),
    }
}
