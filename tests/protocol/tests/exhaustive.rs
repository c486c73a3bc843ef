//! The protocol with all its guards, in every order of steps within the bounds.
//!
//! `PROTOCOL_KILLS`, `PROTOCOL_LOSSES` and `PROTOCOL_OPERATIONS` search one space with other bounds in place of the three
//! that `make test` searches, keeping about 20 bytes of each state.

use protocol_model::checker::Protocol;
use protocol_model::course::Course;
use protocol_model::properties::{Reached, has_two_writers};
use protocol_model::search::{Found, play, search, search_large};
use protocol_model::setup::{BackEnd, Flow, Guards, Setup};
use protocol_model::state::{Budget, Node};

/// Two failures of whatever kind, and two operations beyond the first placement.
const BOUNDS: [(u8, u8); 3] = [(2, 0), (1, 1), (0, 2)];

fn setup(back_end: BackEnd, flow: Flow, takeover: bool, bounds: Budget) -> Setup {
    Setup {
        back_end,
        flow,
        takeover,
        attaches_again: true,
        bounds,
        guards: Guards::ALL,
    }
}

fn from_environment(name: &str) -> Option<u8> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a small number"))
}

fn bounds_are_chosen() -> bool {
    ["PROTOCOL_KILLS", "PROTOCOL_LOSSES"]
        .into_iter()
        .any(|name| from_environment(name).is_some())
}

/// The bounds to search, with a takeover or without.
fn bounds(takeover: bool) -> Vec<Budget> {
    let names = ["PROTOCOL_KILLS", "PROTOCOL_LOSSES", "PROTOCOL_OPERATIONS"];
    let [kills, losses, operations] = names.map(from_environment);
    let operations = operations.unwrap_or(2);
    if bounds_are_chosen() {
        let (kills, losses) = (kills.unwrap_or(0), losses.unwrap_or(0));
        return vec![Budget {
            kills,
            losses,
            operations,
        }];
    }
    // A takeover needs one death, so two deaths and a takeover are a space of its own size.
    let bounds = if takeover { &[(1, 0)][..] } else { &BOUNDS };
    let budget = |(kills, losses): &(u8, u8)| Budget {
        kills: *kills,
        losses: *losses,
        operations,
    };
    bounds.iter().map(budget).collect()
}

/// Searches every space of one kind of cluster, and returns what was reached.
fn holds(back_end: BackEnd, flow: Flow) -> u32 {
    let mut reached = 0;
    for takeover in [false, true] {
        for bounds in bounds(takeover) {
            let setup = setup(back_end, flow, takeover, bounds);
            let found = if bounds_are_chosen() {
                search_large(setup)
            } else {
                search(setup)
            };
            println!("{}", found.figures);
            if let Some((property, steps)) = found.violation {
                let course = protocol_model::search::written(&setup.course(property, steps));
                panic!("violated: {property}\n{course}");
            }
            reached |= found.reached;
        }
    }
    reached
}

fn assert_reached(reached: u32, expected: u32) {
    // Without kills or losses some situations do not exist.
    if bounds_are_chosen() {
        println!("Bounds were chosen: what was reached is not checked ({reached:#b})");
        return;
    }
    assert_eq!(
        reached & expected,
        expected,
        "missing: {:#b}",
        expected & !reached
    );
}

/// What every kind of cluster reaches, so that the properties are about something.
const ALWAYS: u32 = Reached::RUNS_ON_B
    | Reached::ROBBED_IN_USE
    | Reached::TAKEN_OVER
    | Reached::PIN_HOLDS
    | Reached::WAITS
    | Reached::LATE
    | Reached::PUTS_BACK
    | Reached::MOUNTED_ON_BOTH_IN_TURN;

#[test]
fn the_protocol_holds_with_an_exclusive_back_end_where_a_controller_attaches() {
    let reached = holds(BackEnd::Exclusive, Flow::Controller);
    assert_reached(reached, ALWAYS);
    let never = Reached::EXPECTED_VIOLATION | Reached::DEVICE_LIVES_ON;
    assert_eq!(
        reached & never,
        0,
        "two writers are impossible here, whatever is dead"
    );
}

#[test]
fn the_protocol_holds_with_an_exclusive_back_end_where_nodes_attach() {
    let reached = holds(BackEnd::Exclusive, Flow::Node);
    assert_reached(reached, ALWAYS | Reached::RELEASE_PENDING);
    let never = Reached::EXPECTED_VIOLATION | Reached::DEVICE_LIVES_ON;
    assert_eq!(
        reached & never,
        0,
        "two writers are impossible here, whatever is dead"
    );
}

#[test]
fn the_protocol_holds_with_a_back_end_that_attaches_twice_but_for_the_expected_violation() {
    let reached = holds(BackEnd::AttachesTwice, Flow::Controller);
    let twice = Reached::STOPPED | Reached::DEVICE_LIVES_ON | Reached::EXPECTED_VIOLATION;
    assert_reached(reached, ALWAYS | twice);
}

#[test]
fn the_protocol_holds_where_nodes_attach_and_the_back_end_twice_but_for_the_expected_violation() {
    let reached = holds(BackEnd::AttachesTwice, Flow::Node);
    let twice = Reached::STOPPED | Reached::DEVICE_LIVES_ON | Reached::EXPECTED_VIOLATION;
    assert_reached(reached, ALWAYS | twice | Reached::RELEASE_PENDING);
}

#[test]
fn a_search_that_keeps_fingerprints_only_finds_the_same() {
    for (losses, guards) in [
        (1, Guards::ALL),
        (
            0,
            Guards {
                pin: false,
                ..Guards::ALL
            },
        ),
    ] {
        let bounds = Budget {
            kills: 1,
            losses,
            operations: 1,
        };
        let setup = Setup {
            guards,
            ..setup(BackEnd::AttachesTwice, Flow::Node, false, bounds)
        };
        let (one, other) = (search(setup), search_large(setup));
        // The courses to it may differ.
        let violated = |found: &Found| found.violation.as_ref().map(|(property, _)| *property);
        assert_eq!(violated(&one), violated(&other));
        assert_eq!(one.violation.is_none(), guards.pin);
        if one.violation.is_none() {
            assert_eq!(one.unique_states, other.unique_states);
            assert_eq!(one.reached, other.reached);
        }
    }
}

/// Reads a course of a file, and returns the model that it is of.
fn read(text: &str) -> (Protocol, Course) {
    let course: Course = serde_json::from_str(text).expect("a course");
    let bounds = Budget {
        kills: 4,
        losses: 2,
        operations: 4,
    };
    assert_eq!(
        (course.back_end.as_str(), course.flow.as_str()),
        ("attaches-twice", "controller")
    );
    let setup = setup(BackEnd::AttachesTwice, Flow::Controller, course.takeover, bounds);
    (Protocol::new(setup), course)
}

/// Plays a course, in the middle of which a node writes beside another, to its end.
fn ends_with_a_stop(text: &str) {
    let (protocol, course) = read(text);
    let beside_another = (1..=course.steps.len()).any(|played| {
        let state = play(&protocol, &course.steps[..played]);
        let state = state.unwrap_or_else(|| panic!("step {played} of {} is not possible", course.name));
        has_two_writers(&state)
    });
    assert!(beside_another, "{}", course.name);
    let end = play(&protocol, &course.steps).expect("it is possible");
    assert!(
        end.at(Node::A).stopped && !has_two_writers(&end),
        "{}: {end:?}",
        course.name
    );
}

#[test]
fn both_recorded_courses_are_courses_of_the_model_and_end_with_the_stop_of_writes() {
    ends_with_a_stop(include_str!("../courses/detached-by-force.json"));
    ends_with_a_stop(include_str!("../courses/taken-over.json"));
}

#[test]
fn a_plugin_stops_what_the_primary_or_flockers_mount_shows_to_be_lost_where_the_lease_does_not() {
    ends_with_a_stop(include_str!("../courses/not-leased-when-read.json"));
    ends_with_a_stop(include_str!("../courses/agent-is-behind.json"));
}
