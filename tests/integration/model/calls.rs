//! The steps of a sequence, and how sequences are generated.

use std::fmt;

use flocker_embedded::faults::Flicker;
use proptest::collection::vec;
use proptest::prelude::*;

/// The number of nodes, each with a plugin.
pub(super) const NODES: usize = 3;
/// The number of volumes in a sequence.
pub(super) const VOLUMES: usize = 2;
/// The number of targets that a volume may have on a node.
pub(super) const TARGETS: usize = 2;

/// The requested properties of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Small,
    Large,
    /// As small as [`Self::Small`], with a profile.
    Gold,
}

/// The service that attaches a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flow {
    /// The controller, before it is staged.
    Controller,
    /// The node, when it is staged.
    Node,
}

/// How a volume is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    ReadWrite,
    ReadOnly,
}

/// One RPC about a volume. Nodes, and the plugins on them, are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Create {
        kind: Kind,
        plugin: usize,
    },
    Delete {
        plugin: usize,
    },
    Attach {
        node: usize,
    },
    Detach {
        node: Option<usize>,
    },
    Stage {
        node: usize,
        flow: Flow,
    },
    Unstage {
        node: usize,
    },
    Publish {
        node: usize,
        target: usize,
        access: Access,
    },
    Unpublish {
        node: usize,
        target: usize,
    },
}

/// An RPC about one of the volumes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct VolumeCall {
    pub(super) volume: usize,
    pub(super) action: Action,
}

impl VolumeCall {
    /// Returns the plugin that serves it. As with orchestrators, one controller makes all attachments of a volume.
    pub(super) fn plugin(self) -> usize {
        match self.action {
            Action::Create { plugin, .. } | Action::Delete { plugin } => plugin,
            Action::Attach { .. } | Action::Detach { .. } => self.volume % NODES,
            Action::Stage { node, .. }
            | Action::Unstage { node }
            | Action::Publish { node, .. }
            | Action::Unpublish { node, .. } => node,
        }
    }

    /// Whether an orchestrator repeats it before it does anything else with the volume.
    pub(super) fn must_be_settled(self) -> bool {
        matches!(self.action, Action::Create { .. } | Action::Delete { .. })
    }
}

impl fmt::Debug for VolumeCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {}: {:?}", self.volume, self.action)
    }
}

/// The fault of a request to Flocker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    Request,
    Reply,
}

/// A request to Flocker that a call makes: of this method, and its index among them, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nth {
    pub(super) method: &'static str,
    pub(super) after: u64,
}

/// When a plugin is killed while it serves a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// After Flocker has received a request and before it carries the request out.
    Asked(Nth),
    /// After Flocker has carried out a request and before it answers.
    Done(Nth),
    /// That many milliseconds after the call has begun.
    Milliseconds(u64),
}

/// How a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// Its machine loses its power, and with it the plugin. `known`: the backend detects it, as those of AWS and
    /// `OpenStack` do.
    PowerCut { known: bool },
    /// Its agent ends; mounts and the plugin stay.
    Agent,
}

/// One step of a sequence.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Call(VolumeCall),
    /// All calls from no volume to a published one. The plugin may be killed while it stages it; then that is repeated.
    Up {
        volume: usize,
        node: usize,
        flow: Flow,
        crash: Option<Moment>,
    },
    /// All calls back, except for the deletion.
    Down {
        volume: usize,
        node: usize,
    },
    /// Two concurrent calls.
    Pair(VolumeCall, VolumeCall),
    /// A call during which a request to Flocker, or its reply, is lost.
    Losing(VolumeCall, Nth, Loss),
    /// A call during which its plugin is killed; then another one is started.
    Killing(VolumeCall, Moment),
    /// A call, with a restart of the control service that many milliseconds after its beginning.
    Restarting(VolumeCall, u64),
    /// From now on, state repeatedly leaves out a dataset.
    Flicker(Flicker),
    /// A volume is attached to a node, that node dies with its machine or only its agent, and when Flocker no longer
    /// lists it, the volume is attached to another one.
    TakeOver {
        volume: usize,
        from: usize,
        to: usize,
        death: Death,
    },
    /// A plugin is killed, and another one is started in its place.
    Restart(usize),
    /// A plugin is killed. Calls to it cannot be made until it is started again.
    Kill(usize),
    Die(usize, Death),
    /// Every process that has ended on a node is started again.
    Start(usize),
    /// `gc --apply` on a node, whose plugin may be killed for it.
    Collect {
        node: usize,
        killed: bool,
    },
    List(usize),
}

/// Generates sequences.
pub(super) fn sequences() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..16)
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    prop_oneof![
        20 => call().prop_map(Step::Call),
        12 => (volume(), node(), flow(), proptest::option::weighted(0.4, moment()))
            .prop_map(|(volume, node, flow, crash)| Step::Up { volume, node, flow, crash }),
        4 => (volume(), node()).prop_map(|(volume, node)| Step::Down { volume, node }),
        8 => (call(), call()).prop_map(|(one, other)| Step::Pair(one, other)),
        8 => (call(), nth(), prop_oneof![Just(Loss::Request), Just(Loss::Reply)])
            .prop_map(|(call, nth, loss)| Step::Losing(call, nth, loss)),
        8 => (call(), moment()).prop_map(|(call, moment)| Step::Killing(call, moment)),
        2 => node().prop_map(Step::Restart),
        2 => node().prop_map(Step::Kill),
        3 => (node(), death()).prop_map(|(node, death)| Step::Die(node, death)),
        3 => (call(), 0..60_u64).prop_map(|(call, after)| Step::Restarting(call, after)),
        2 => prop_oneof![Just(Flicker::Off), Just(Flicker::Unsettled), Just(Flicker::All)].prop_map(Step::Flicker),
        2 => (volume(), node(), 1..NODES, death()).prop_map(|(volume, from, further, death)| {
            let to = (from + further) % NODES;
            Step::TakeOver { volume, from, to, death }
        }),
        3 => node().prop_map(Step::Start),
        4 => (node(), any::<bool>()).prop_map(|(node, killed)| Step::Collect { node, killed }),
        2 => node().prop_map(Step::List),
    ]
}

fn call() -> impl Strategy<Value = VolumeCall> {
    (volume(), action()).prop_map(|(volume, action)| VolumeCall { volume, action })
}

fn action() -> impl Strategy<Value = Action> {
    let (node, target) = (|| 0..NODES, || 0..TARGETS);
    let kind = prop_oneof![3 => Just(Kind::Small), 1 => Just(Kind::Large), 1 => Just(Kind::Gold)];
    let access = prop_oneof![2 => Just(Access::ReadWrite), 1 => Just(Access::ReadOnly)];
    prop_oneof![
        4 => (kind, node()).prop_map(|(kind, plugin)| Action::Create { kind, plugin }),
        2 => node().prop_map(|plugin| Action::Delete { plugin }),
        5 => node().prop_map(|node| Action::Attach { node }),
        3 => proptest::option::weighted(0.8, node()).prop_map(|node| Action::Detach { node }),
        6 => (node(), flow()).prop_map(|(node, flow)| Action::Stage { node, flow }),
        5 => node().prop_map(|node| Action::Unstage { node }),
        6 => (node(), target(), access)
            .prop_map(|(node, target, access)| Action::Publish { node, target, access }),
        4 => (node(), target()).prop_map(|(node, target)| Action::Unpublish { node, target }),
    ]
}

/// Most steps are about one volume, because otherwise none would get far.
fn volume() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0), 1 => 1..VOLUMES]
}

fn flow() -> impl Strategy<Value = Flow> {
    prop_oneof![Just(Flow::Controller), Just(Flow::Node)]
}

fn death() -> impl Strategy<Value = Death> {
    prop_oneof![
        2 => any::<bool>().prop_map(|known| Death::PowerCut { known }),
        1 => Just(Death::Agent),
    ]
}

fn nth() -> impl Strategy<Value = Nth> {
    let method = prop_oneof![2 => Just("POST"), 1 => Just("DELETE"), 1 => Just("GET")];
    (method, 0..3_u64).prop_map(|(method, after)| Nth { method, after })
}

fn moment() -> impl Strategy<Value = Moment> {
    prop_oneof![
        nth().prop_map(Moment::Asked),
        nth().prop_map(Moment::Done),
        (0..60_u64).prop_map(Moment::Milliseconds),
    ]
}
