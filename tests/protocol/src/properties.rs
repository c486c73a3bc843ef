//! What has to hold, and the situations that have to be reached for that to mean something.
//!
//! All properties are invariants. What holds in the end is required of every *quiescent* state, in which every process runs, no
//! request is under way, and nothing happens any more unless something fails or the orchestrator wants something else.
//! stateright's `eventually` is not used: it misses violations where two paths join and where a path ends in a cycle, as its
//! documentation says.

use stateright::Property;

use crate::checker::Protocol;
use crate::setup::{BackEnd, Flow};
use crate::state::{Alias, Attachment, Node, OnNode, Record, Robbed, State, Task};

/// At most one node writes.
pub const ONE_WRITER: &str = "while a node writes, no other file system of the volume is mounted for writing";
/// Published is what is staged.
pub const PUBLISHES_WHAT_IS_STAGED: &str =
    "what is published is the file system that Flocker has mounted here";
/// Leases are given back.
pub const GIVES_LEASES_BACK: &str = "a lease that no node needs is given back";
/// Waiting ends.
pub const IS_HAD: &str = "a volume that a node waits for is had once its holder has let go";
/// Volumes in use are leased.
pub const IN_USE_IS_LEASED: &str = "a volume in use is leased, unless its lease was taken by force";

/// Writes of a healthy volume are never stopped.
pub const STOPS_ONLY_WHAT_IS_LOST: &str =
    "writes are stopped only where Flocker's mount was unmounted or replaced";

/// All properties.
pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_WRITER, |protocol: &Protocol, state| {
            note(protocol, state);
            one_writer(protocol, state)
        }),
        Property::always(PUBLISHES_WHAT_IS_STAGED, |_, state: &State| {
            !state.published_another
        }),
        Property::always(STOPS_ONLY_WHAT_IS_LOST, |_, state: &State| {
            // Staging a volume again that was stopped does not mend it; it is not published.
            let is_healthy = |on: &OnNode| on.alias == Alias::Current && on.same_mount;
            !state
                .nodes
                .iter()
                .any(|on| on.stopped && on.task == Task::Running && is_healthy(on))
        }),
        Property::always(GIVES_LEASES_BACK, |protocol: &Protocol, state| {
            gives_leases_back(protocol, state) || !protocol.is_quiescent(state)
        }),
        Property::always(IS_HAD, |protocol: &Protocol, state| {
            is_had(protocol, state) || !protocol.is_quiescent(state)
        }),
        Property::always(IN_USE_IS_LEASED, |protocol: &Protocol, state| {
            in_use_is_leased(protocol, state) || !protocol.is_quiescent(state)
        }),
    ]
}

/// Whether a property is violated that no later step mends.
pub(crate) fn is_violated(protocol: &Protocol, state: &State) -> bool {
    state.published_another || !one_writer(protocol, state)
}

fn one_writer(protocol: &Protocol, state: &State) -> bool {
    if !has_two_writers(state) {
        return true;
    }
    // A violation that is expected is noted, and followed as far as it goes.
    let expected = is_expected(protocol, state);
    if expected {
        protocol.note(Reached::EXPECTED_VIOLATION);
    }
    expected
}

/// Whether a node writes while another file system of the volume is mounted for writing, on whatever node: also one that only
/// an agent has mounted, because mounting replays the journal.
pub fn has_two_writers(state: &State) -> bool {
    let live: usize = state
        .nodes
        .iter()
        .map(|on| usize::from(on.current_is_live()) + usize::from(on.detached_is_live()))
        .sum();
    live > 1 && state.nodes.iter().any(OnNode::writes)
}

/// The exact condition of what the protocol cannot exclude, as `docs/failure-modes.md` has it: the back end attaches a volume
/// twice; the lease was taken from a node, by force or by a takeover, while the volume was staged there, or its agent had not
/// received yet that the node has the lease; and that node's plugin was dead, and has not read since that another node has the
/// lease, or is the primary without one, or that Flocker has mounted the volume there from another device.
fn is_expected(protocol: &Protocol, state: &State) -> bool {
    let excused = |on: &OnNode| {
        let lost = on.robbed != Robbed::No || on.outrun;
        on.detached_is_live() && lost && (!on.plugin || on.unseen)
    };
    protocol.setup.back_end == BackEnd::AttachesTwice && state.nodes.iter().any(excused)
}

fn gives_leases_back(protocol: &Protocol, state: &State) -> bool {
    state.stray_lease || state.lease.is_none_or(|node| needs_lease(protocol, state, node))
}

fn needs_lease(protocol: &Protocol, state: &State, node: Node) -> bool {
    let on = state.at(node);
    match protocol.setup.flow {
        Flow::Controller => matches!(on.attachment, Attachment::Attaching | Attachment::Attached),
        Flow::Node => matches!(on.task, Task::Starting | Task::Running),
    }
}

fn is_had(protocol: &Protocol, state: &State) -> bool {
    Node::BOTH.into_iter().all(|node| {
        let (on, other) = (state.at(node), state.at(node.other()));
        // What was stopped under Flocker's mount too stays so until that is unmounted.
        let waits = on.task == Task::Starting && !on.flockers_is_stopped;
        let held = match protocol.setup.flow {
            Flow::Controller => other.attachment == Attachment::Attached || other.task == Task::Running,
            Flow::Node => other.task == Task::Running,
        };
        !waits || held || other.stopped || state.stray_lease && state.lease == Some(node.other())
    })
}

fn in_use_is_leased(protocol: &Protocol, state: &State) -> bool {
    Node::BOTH.into_iter().all(|node| {
        let on = state.at(node);
        let is_own = state.lease == Some(node);
        let is_excused = match on.robbed {
            Robbed::OnPurpose | Robbed::Unclear => true,
            // Another node was faster than the process that acquires the lease again.
            Robbed::ByRace => state.lease.is_some(),
            Robbed::No | Robbed::ByMistake => false,
        };
        // Where nodes attach, no orchestrator cares about a lease that was released under a task: the node does.
        let cares = protocol.setup.flow == Flow::Controller || state.lease.is_some();
        // The node does not either where the volume is configured to be elsewhere: it is reported.
        let moved_away = state.lease.is_none() && state.primary != node;
        let is_reported = protocol.setup.flow == Flow::Node && moved_away;
        // What was stopped is not in use.
        let in_use = on.task == Task::Running && !on.stopped;
        !in_use || is_own || is_reported || is_excused && cares
    })
}

/// Situations that have to be reached: properties of what never happens prove nothing.
pub struct Reached;

impl Reached {
    /// A task runs on node B, which had nothing of the volume at first.
    pub const RUNS_ON_B: u32 = 1;
    /// A lease was taken while the volume was in use.
    pub const ROBBED_IN_USE: u32 = 1 << 1;
    /// A node that is gone has lost its lease to another one.
    pub const TAKEN_OVER: u32 = 1 << 2;
    /// Writes were stopped.
    pub const STOPPED: u32 = 1 << 3;
    /// A pin holds the volume on a node against the lease of another one.
    pub const PIN_HOLDS: u32 = 1 << 4;
    /// A release is pending after the process ended.
    pub const RELEASE_PENDING: u32 = 1 << 5;
    /// A request is late.
    pub const LATE: u32 = 1 << 6;
    /// A device lives on after it was detached.
    pub const DEVICE_LIVES_ON: u32 = 1 << 7;
    /// The violation that the protocol cannot exclude.
    pub const EXPECTED_VIOLATION: u32 = 1 << 8;
    /// The volume was on node A first and is on node B now.
    pub const MOUNTED_ON_BOTH_IN_TURN: u32 = 1 << 9;
    /// One node waits for the other in the end.
    pub const WAITS: u32 = 1 << 10;
    /// A DELETE has hit another node's lease.
    pub const PUTS_BACK: u32 = 1 << 11;
}

fn note(protocol: &Protocol, state: &State) {
    use crate::state::{Controller, NodeRpc};
    let mut reached = 0;
    for node in Node::BOTH {
        let (on, other) = (state.at(node), state.at(node.other()));
        let held_elsewhere = state.lease == Some(node.other());
        let mut note = |holds: bool, bit: u32| reached |= if holds { bit } else { 0 };
        note(node == Node::B && on.task == Task::Running, Reached::RUNS_ON_B);
        note(
            on.robbed != Robbed::No && on.task == Task::Running,
            Reached::ROBBED_IN_USE,
        );
        note(
            held_elsewhere && on.robbed != Robbed::No && !on.agent,
            Reached::TAKEN_OVER,
        );
        note(on.stopped, Reached::STOPPED);
        note(
            held_elsewhere && on.pin && on.received == Some(state.sent_to(node)),
            Reached::PIN_HOLDS,
        );
        note(
            !on.plugin && on.record == Record::ReleasePending,
            Reached::RELEASE_PENDING,
        );
        note(state.late.is_some(), Reached::LATE);
        note(on.alias == Alias::Detached, Reached::DEVICE_LIVES_ON);
        let putting_back = on.controller == Controller::PuttingBack || on.rpc == NodeRpc::PuttingBack;
        note(putting_back, Reached::PUTS_BACK);
        note(
            node == Node::B && on.task == Task::Running && !other.flockers_mount,
            Reached::MOUNTED_ON_BOTH_IN_TURN,
        );
        note(
            on.task == Task::Starting && other.task == Task::Running,
            Reached::WAITS,
        );
    }
    protocol.note(reached);
}
