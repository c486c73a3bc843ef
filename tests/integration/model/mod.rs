//! Random sequences of calls and failures against a small model of what must hold.
//!
//! `MODEL_CASES` and `MODEL_SEED` in the environment choose the number of sequences, and which. A sequence that breaks a
//! rule is shortened, at most `MODEL_SHRINKS` times, as long as the rest still breaks one.

mod calls;
mod case;
mod collect;
mod fixture;
mod invariants;
mod leftovers;
mod random_faults;
mod scenarios;
mod seen;
mod soak;
mod tally;

use std::cell::RefCell;
use std::fmt::Display;
use std::panic::resume_unwind;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::support::namespace::in_own_namespace_for;
use calls::sequences;
use case::Case;
use fixture::Fixture;
use tally::Tally;

/// As many sequences as `make test` has time for.
const CASES: u32 = 40;
/// The number of parts that run concurrently, because they wait more than they compute; the seed of each is that of the
/// previous part plus one.
const PARTS: u32 = 2;
const SEED: u64 = 11;
/// How often a sequence that fails is shortened, and for how long.
const SHRINKS: u32 = 200;
const SHRINKING: Duration = Duration::from_secs(120);
const LONGEST: Duration = Duration::from_secs(6 * 60 * 60);

#[test]
fn no_sequence_of_calls_and_failures_breaks_an_invariant() {
    in_own_namespace_for(LONGEST, || async { block_in_place(run) });
}

fn run() {
    let seed = setting("MODEL_SEED", SEED);
    let cases = setting("MODEL_CASES", CASES);
    println!("model: {cases} sequences with MODEL_SEED={seed}");
    let (tally, runtime) = (Tally::default(), Handle::current());
    let parts = (0..PARTS).map(|part| (seed.wrapping_add(part.into()), cases.div_ceil(PARTS)));
    thread::scope(|scope| {
        let running = parts.map(|(seed, cases)| {
            scope.spawn({
                let (tally, runtime) = (&tally, &runtime);
                move || run_part(seed, cases, tally, runtime)
            })
        });
        for part in running.collect::<Vec<_>>() {
            if let Err(panic) = part.join() {
                resume_unwind(panic);
            }
        }
    });
    println!("model: {cases} sequences kept all rules; what was answered:\n{tally}");
    assert!(
        cases < CASES || tally.is_varied(),
        "this seed leaves calls or answers out: take another"
    );
}

/// Runs a part of the sequences on its own system.
fn run_part(seed: u64, cases: u32, tally: &Tally, runtime: &Handle) {
    let _entered = runtime.enter();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: setting("MODEL_SHRINKS", SHRINKS),
        max_shrink_time: u32::try_from(SHRINKING.as_millis()).unwrap(),
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let fixture = RefCell::new(None);
    let number = RefCell::new(0);
    let ended = runner.run(&sequences(), |steps| {
        // A failure leaves state that would disturb the next sequence, so that gets a new system.
        let used = fixture
            .borrow_mut()
            .take()
            .unwrap_or_else(|| runtime.block_on(Fixture::start()));
        *number.borrow_mut() += 1;
        let case = Case::new(&used, tally, *number.borrow());
        let verdict = runtime.block_on(case.run(&steps));
        match verdict {
            Ok(()) => {
                *fixture.borrow_mut() = Some(used);
                Ok(())
            }
            Err(broken) => {
                println!("{broken}\nin {steps:#?}");
                Err(TestCaseError::fail(broken))
            }
        }
    });
    match ended {
        Ok(()) => {}
        Err(TestError::Fail(broken, steps)) => {
            let cases = cases * PARTS;
            panic!("{broken}\nin the sequence {steps:#?}\nfound with MODEL_SEED={seed} MODEL_CASES={cases}")
        }
        Err(TestError::Abort(reason)) => panic!("no sequences could be made up: {reason}"),
    }
}

/// Returns a number from the environment.
fn setting<T: FromStr<Err: Display>>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) => default,
    }
}
