//! The model as the checker sees it: steps, and the state after each.

use std::sync::atomic::{AtomicU32, Ordering};

use stateright::{Model, Property};

use crate::course::{Fate, Step, What};
use crate::setup::Setup;
use crate::state::{Alias, Node, State, Task};
use crate::{controller, flocker, orchestrator, plugin, properties};

/// The steps of processes that run, which happen sooner or later.
const GOES_ON: [What; 33] = [
    What::CleanUp,
    What::AttachReads,
    What::AttachTakesOver,
    What::AttachLeases,
    What::AttachMoves,
    What::AttachEnds,
    What::AttachStartsOver,
    What::DetachReads,
    What::DetachReleases,
    What::DetachPutsBack,
    What::StageBegins,
    What::StagePins,
    What::StageReads,
    What::StageIsRefused,
    What::StageMounts,
    What::Publish,
    What::Unpublish,
    What::UnstageUnmounts,
    What::UnstageEnds,
    What::NodeReleaseReads,
    What::NodeReleases,
    What::NodePutsBack,
    What::NodeReleaseGoesOn,
    What::WatchReads,
    What::AgentReceives,
    What::AgentReports,
    What::AgentUnmounts,
    What::AgentDetaches,
    What::AgentAttaches,
    What::AgentMounts,
    What::LateRequestArrives,
    What::StartAgent,
    What::StartPlugin,
];
/// What may happen, or not.
const MAY_HAPPEN: [What; 10] = [
    What::Place,
    What::Drop,
    What::DropStaged,
    What::DetachByForce,
    What::NodeExpires,
    What::KillAgent,
    What::KillPlugin,
    What::Reboot,
    What::RestartController,
    What::RestartControlService,
];

/// The model with one setup.
pub struct Protocol {
    /// What is checked.
    pub setup: Setup,
    /// Which situations were reached, by the bits of [`properties::Reached`].
    pub reached: AtomicU32,
}

impl Protocol {
    /// Makes the model.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            reached: AtomicU32::new(0),
        }
    }

    /// Returns the state after a step; `None` where the step is not possible or changes nothing.
    #[must_use]
    pub fn after(&self, before: &State, step: Step) -> Option<State> {
        let (what, node, fate, setup) = (step.what(), step.at(), step.fate(), &self.setup);
        let mut after = *before;
        match what {
            What::Place | What::Drop | What::DropStaged | What::DetachByForce | What::CleanUp => {
                orchestrator::step(&mut after, setup, what, node)
            }
            What::AttachReads
            | What::AttachTakesOver
            | What::AttachLeases
            | What::AttachMoves
            | What::AttachEnds
            | What::AttachStartsOver
            | What::DetachReads
            | What::DetachReleases
            | What::DetachPutsBack => controller::step(&mut after, setup, what, node, fate),
            What::AgentReceives
            | What::AgentReports
            | What::AgentUnmounts
            | What::AgentDetaches
            | What::AgentAttaches
            | What::AgentMounts
            | What::NodeExpires
            | What::LateRequestArrives => flocker::step(&mut after, setup, what, node),
            What::KillAgent
            | What::StartAgent
            | What::KillPlugin
            | What::StartPlugin
            | What::Reboot
            | What::RestartController
            | What::RestartControlService => flocker::kill_or_start(&mut after, setup, what, node),
            _ => plugin::step(&mut after, setup, what, node, fate),
        }?;
        flocker::note_robbed(before, step, &mut after);
        forget_what_no_process_sees(&mut after);
        (after != *before).then_some(after)
    }

    /// Whether nothing happens any more unless something fails or the orchestrator wants something else.
    #[must_use]
    pub fn is_quiescent(&self, state: &State) -> bool {
        // These are possible most often, so they are looked at first; the order decides nothing.
        let goes_on = |what| {
            Node::BOTH
                .into_iter()
                .any(|node| self.after(state, Step::of(what, node)).is_some())
        };
        !GOES_ON.into_iter().any(goes_on)
    }

    /// Notes that a situation was reached.
    pub(crate) fn note(&self, reached: u32) {
        if self.reached.load(Ordering::Relaxed) & reached != reached {
            self.reached.fetch_or(reached, Ordering::Relaxed);
        }
    }
}

impl Step {
    /// Returns a step whose requests are answered.
    #[must_use]
    pub fn of(what: What, node: Node) -> Step {
        if what.is_request() {
            Step::Request(what, node, Fate::Answered)
        } else {
            Step::Plain(what, node)
        }
    }
}

impl What {
    /// Whether it is a write at Flocker whose reply may be lost.
    #[must_use]
    pub fn is_request(self) -> bool {
        matches!(
            self,
            What::AttachTakesOver
                | What::AttachLeases
                | What::AttachMoves
                | What::DetachReleases
                | What::NodeReleases
        )
    }
}

/// Makes states equal that differ only in what no step depends on.
fn forget_what_no_process_sees(state: &mut State) {
    for node in Node::BOTH {
        let on = state.at_mut(node);
        if on.alias == Alias::None {
            on.stopped = false;
            on.same_mount = false;
            on.unseen = false;
            on.held_elsewhere = false;
        }
        on.flockers_is_stopped &= on.flockers_mount;
        if on.task != Task::Starting {
            on.held_elsewhere = false;
        }
        if on.pin && on.alias == Alias::Current {
            on.unseen = false;
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.setup.initial()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        // What has gone wrong is not continued.
        if properties::is_violated(self, state) {
            return;
        }
        for what in GOES_ON.into_iter().chain(MAY_HAPPEN) {
            for node in Node::BOTH {
                // What is not possible has no next state.
                steps.push(Step::of(what, node));
                if what.is_request() && state.left.losses > 0 {
                    steps.push(Step::Request(what, node, Fate::ReplyLost));
                    steps.push(Step::Request(what, node, Fate::Late));
                }
            }
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        self.after(state, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
