//! Searching all states, and what is printed about it.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use stateright::{Checker, HasDiscoveries, Model};

use crate::checker::Protocol;
use crate::course::{Course, Step};
use crate::levels;
use crate::setup::{BackEnd, Flow, Setup};
use crate::state::State;

/// What a search has found.
#[derive(Debug)]
pub struct Found {
    /// How many different states there are.
    pub unique_states: usize,
    /// The situations that were reached: bits of [`crate::properties::Reached`].
    pub reached: u32,
    /// The violated property and a course to it, if one is violated.
    pub violation: Option<(&'static str, Vec<Step>)>,
    /// States, unique states, depth and time, in words.
    pub figures: String,
}

#[allow(clippy::disallowed_types, reason = "nothing here has tokio's clock")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Searches all states, or until a property is violated.
///
/// # Panics
/// The search ended early.
#[must_use]
pub fn search(setup: Setup) -> Found {
    let began = now();
    let checker = Protocol::new(setup)
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    assert!(checker.is_done(), "no limit cuts the search off");
    let figures = format!(
        "{setup}: {} states, {} unique, depth {}, {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    Found {
        unique_states: checker.unique_state_count(),
        reached: checker.model().reached.load(Ordering::Relaxed),
        violation: shortest(setup, &checker),
        figures,
    }
}

/// The same for a space that is too large to keep the way to each state: of each only its fingerprint is kept. A violation is
/// searched again to find its course, so only as far as it is away from the beginning.
///
/// # Panics
/// The search ended early, or the course is not found.
#[must_use]
pub fn search_large(setup: Setup) -> Found {
    let began = now();
    let protocol = Protocol::new(setup);
    let found = levels::search(&protocol);
    let figures = format!(
        "{setup}: {} states, {} unique, depth {}, {:.1} s",
        found.states,
        found.unique_states,
        found.depth,
        began.elapsed().as_secs_f64()
    );
    let violation = found.violated.map(|violated| {
        let checker = Protocol::new(setup)
            .checker()
            .finish_when(HasDiscoveries::AnyFailures)
            .target_max_depth(found.depth + 1)
            .spawn_bfs()
            .join();
        let shortest = shortest(setup, &checker);
        shortest.unwrap_or_else(|| panic!("violated, and no course found: {violated}"))
    });
    Found {
        unique_states: found.unique_states,
        reached: protocol.reached.load(Ordering::Relaxed),
        violation,
        figures,
    }
}

/// Returns the violated property that the fewest steps lead to, and those steps.
fn shortest(setup: Setup, checker: &impl Checker<Protocol>) -> Option<(&'static str, Vec<Step>)> {
    let shortest = checker
        .discoveries()
        .into_iter()
        .map(|(property, path)| (property, path.into_actions()))
        .min_by_key(|(property, steps)| (steps.len(), *property));
    shortest.map(|(property, steps)| (property, shorten(setup, property, steps)))
}

/// Plays steps from the beginning; `None` where one of them is not possible.
#[must_use]
pub fn play(protocol: &Protocol, steps: &[Step]) -> Option<State> {
    let beginning = protocol.setup.initial();
    steps
        .iter()
        .try_fold(beginning, |state, step| protocol.after(&state, *step))
}

/// Leaves out steps without which the property is violated all the same.
fn shorten(setup: Setup, property: &'static str, mut steps: Vec<Step>) -> Vec<Step> {
    let protocol = Protocol::new(setup);
    let holds = protocol.property(property).condition;
    let mut at = 0;
    while at < steps.len() {
        let mut without = steps.clone();
        without.remove(at);
        match play(&protocol, &without) {
            Some(state) if !holds(&protocol, &state) => steps = without,
            _ => at += 1,
        }
    }
    steps
}

impl Setup {
    /// Returns a course with this setup.
    #[must_use]
    pub fn course(&self, name: &str, steps: Vec<Step>) -> Course {
        Course {
            name: name.to_owned(),
            back_end: self.back_end.name().to_owned(),
            flow: self.flow.name().to_owned(),
            takeover: self.takeover,
            steps,
        }
    }
}

impl std::fmt::Display for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let takeover = if self.takeover { "node-gone" } else { "never" };
        write!(
            f,
            "back end {}, attached by {}, takeover {takeover}, {} kills, {} losses, {} operations",
            self.back_end.name(),
            self.flow.name(),
            self.bounds.kills,
            self.bounds.losses,
            self.bounds.operations
        )
    }
}

impl BackEnd {
    fn name(self) -> &'static str {
        match self {
            BackEnd::Exclusive => "exclusive",
            BackEnd::AttachesTwice => "attaches-twice",
        }
    }
}

impl Flow {
    fn name(self) -> &'static str {
        match self {
            Flow::Controller => "controller",
            Flow::Node => "node",
        }
    }
}

/// Returns a course as it is written to a file: a step on each line.
///
/// # Panics
/// It cannot be serialised, which does not happen.
#[must_use]
pub fn written(course: &Course) -> String {
    let mut text = format!(
        "{{\n  \"name\": {},\n  \"back_end\": {},\n  \"flow\": {},\n  \"takeover\": {},\n  \"steps\": [",
        json(&course.name),
        json(&course.back_end),
        json(&course.flow),
        course.takeover
    );
    for (number, step) in course.steps.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        write!(text, "{comma}\n    {}", json(step)).expect("a text takes it");
    }
    text + "\n  ]\n}\n"
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("it has no maps")
}
