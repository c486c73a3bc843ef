//! Without any one of its guards, the protocol is violated, and the search finds how.
//!
//! Each test prints its counterexample as a course (`cargo test -p protocol-model -- --nocapture`).

use protocol_model::properties::{
    GIVES_LEASES_BACK, IN_USE_IS_LEASED, IS_HAD, ONE_WRITER, PUBLISHES_WHAT_IS_STAGED,
    STOPS_ONLY_WHAT_IS_LOST,
};
use protocol_model::search::{search, written};
use protocol_model::setup::{BackEnd, Flow, Guards, Setup};
use protocol_model::state::Budget;

/// Searches without a guard: there is a counterexample, to this property. With the guard there is none.
fn is_needed(name: &str, guards: Guards, back_end: BackEnd, flow: Flow, takeover: bool, property: &str) {
    is_needed_in(2, name, guards, back_end, flow, takeover, property);
}

/// As [`is_needed`], with that many operations of the orchestrator.
fn is_needed_in(
    operations: u8,
    name: &str,
    guards: Guards,
    back_end: BackEnd,
    flow: Flow,
    takeover: bool,
    property: &str,
) {
    let setup = Setup {
        back_end,
        flow,
        takeover,
        attaches_again: false,
        bounds: Budget {
            kills: 1,
            losses: 0,
            operations,
        },
        guards,
    };
    let with = search(Setup {
        guards: Guards::ALL,
        ..setup
    });
    assert!(with.violation.is_none(), "with all guards: {:?}", with.violation);
    let without = search(setup);
    let (violated, steps) = without
        .violation
        .unwrap_or_else(|| panic!("nothing needs it: {name}"));
    println!(
        "without: {name}: {violated}\n{}",
        written(&setup.course(name, steps))
    );
    assert_eq!(violated, property);
}

const TWICE: BackEnd = BackEnd::AttachesTwice;
const ONCE: BackEnd = BackEnd::Exclusive;
const ALL: Guards = Guards::ALL;

#[test]
fn the_pin_keeps_the_volume_of_a_living_plugin_from_a_second_writer() {
    let guards = Guards { pin: false, ..ALL };
    is_needed("the pin", guards, TWICE, Flow::Controller, false, ONE_WRITER);
}

#[test]
fn a_move_comes_after_the_lease_or_a_plugin_that_was_dead_stops_by_the_primary() {
    // Either one finds what the other misses, once the plugin runs again; without the lease first, there is more of it.
    let guards = Guards {
        lease_before_move: false,
        asks_primary: false,
        ..ALL
    };
    let name = "the lease before the move, and the primary";
    is_needed(name, guards, TWICE, Flow::Controller, false, ONE_WRITER);
}

#[test]
fn staging_reads_lease_and_primary_last() {
    let guards = Guards {
        stage_reads_last: false,
        ..ALL
    };
    is_needed(
        "the last read of NodeStage",
        guards,
        TWICE,
        Flow::Controller,
        false,
        ONE_WRITER,
    );
}

#[test]
fn an_attachment_reads_lease_and_primary_last() {
    // NodeStage reads them too: either finds what the other misses, but a volume may be had later.
    let guards = Guards {
        attach_reads_last: false,
        stage_reads_last: false,
        ..ALL
    };
    is_needed("both last reads", guards, ONCE, Flow::Controller, false, IS_HAD);
}

#[test]
fn a_release_reads_whose_lease_it_is_first() {
    let guards = Guards {
        release_reads_first: false,
        ..ALL
    };
    is_needed(
        "the read before a release",
        guards,
        ONCE,
        Flow::Controller,
        false,
        IN_USE_IS_LEASED,
    );
}

#[test]
fn a_lease_that_a_release_hit_is_put_back() {
    let guards = Guards {
        puts_back: false,
        ..ALL
    };
    is_needed(
        "putting a lease back",
        guards,
        ONCE,
        Flow::Controller,
        true,
        IN_USE_IS_LEASED,
    );
}

#[test]
fn writes_are_stopped_where_the_pin_was_lost_and_another_node_has_the_lease() {
    let guards = Guards {
        stops_writes: false,
        ..ALL
    };
    is_needed(
        "the stop of writes",
        guards,
        TWICE,
        Flow::Controller,
        false,
        ONE_WRITER,
    );
}

#[test]
fn the_primary_is_asked_where_no_node_has_the_lease_of_a_volume_whose_pin_was_lost() {
    let guards = Guards {
        asks_primary: false,
        ..ALL
    };
    let name = "the configured primary where no node has the lease";
    is_needed_in(3, name, guards, TWICE, Flow::Controller, false, ONE_WRITER);
}

#[test]
fn writes_are_stopped_where_flocker_has_mounted_the_volume_from_another_device() {
    let guards = Guards {
        stops_replaced: false,
        ..ALL
    };
    let name = "the stop of writes to what Flocker has replaced";
    is_needed(name, guards, TWICE, Flow::Controller, false, ONE_WRITER);
}

#[test]
fn a_lease_that_staging_took_is_acquired_again_under_a_task() {
    let guards = Guards {
        leases_again: false,
        ..ALL
    };
    is_needed("leasing again", guards, ONCE, Flow::Node, false, IN_USE_IS_LEASED);
}

#[test]
fn a_lease_that_a_controller_acquired_is_not_acquired_again() {
    let guards = Guards {
        leaves_controllers_leases: false,
        ..ALL
    };
    is_needed(
        "leaving controllers' leases",
        guards,
        ONCE,
        Flow::Controller,
        false,
        GIVES_LEASES_BACK,
    );
}

#[test]
fn a_volume_that_nothing_uses_is_let_go() {
    let guards = Guards {
        lets_go: false,
        ..ALL
    };
    is_needed("letting go", guards, ONCE, Flow::Controller, false, IS_HAD);
}

#[test]
fn the_plugin_mounts_the_device_under_a_name_of_its_own() {
    let guards = Guards {
        own_device_name: false,
        ..ALL
    };
    is_needed(
        "a device name of its own",
        guards,
        TWICE,
        Flow::Controller,
        false,
        ONE_WRITER,
    );
}

#[test]
fn only_what_is_as_staging_left_it_is_published() {
    let guards = Guards {
        publishes_healthy_only: false,
        ..ALL
    };
    let property = PUBLISHES_WHAT_IS_STAGED;
    is_needed(
        "publishing healthy volumes only",
        guards,
        ONCE,
        Flow::Controller,
        false,
        property,
    );
}

#[test]
fn a_release_that_is_due_survives_the_process_and_the_boot() {
    let guards = Guards {
        remembers_releases: false,
        ..ALL
    };
    is_needed(
        "remembering releases",
        guards,
        ONCE,
        Flow::Node,
        false,
        GIVES_LEASES_BACK,
    );
}

#[test]
fn a_plugin_that_starts_pins_what_is_staged() {
    let guards = Guards {
        pins_again: false,
        ..ALL
    };
    let property = STOPS_ONLY_WHAT_IS_LOST;
    is_needed("pinning again", guards, ONCE, Flow::Controller, false, property);
}
