//! Searching spaces that do not fit into memory with their courses: level by level, keeping fingerprints only.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

use stateright::Model;

use crate::checker::Protocol;
use crate::state::State;

/// How many locks the fingerprints have, and how many times the memory of one is moved when it grows.
const SHARDS: u64 = 256;

/// What a search has found.
pub(crate) struct Level {
    /// How many states were reached, each as often as it was.
    pub(crate) states: usize,
    /// How many different states there are.
    pub(crate) unique_states: usize,
    /// The number of steps to the last new state, or to a state in which a property is violated.
    pub(crate) depth: usize,
    /// The violated property.
    pub(crate) violated: Option<&'static str>,
}

/// Searches all states, or until a property is violated. All properties are invariants, so none needs a state's past.
pub(crate) fn search(protocol: &Protocol) -> Level {
    let (seen, properties) = (Seen::new(), protocol.properties());
    let violated = |state: &State| {
        let violated = properties
            .iter()
            .find(|property| !(property.condition)(protocol, state));
        violated.map(|property| property.name)
    };
    let mut newest: Vec<State> = protocol.init_states();
    newest.retain(|state| seen.is_new(state));
    let mut found = Level {
        states: newest.len(),
        unique_states: 0,
        depth: 0,
        violated: None,
    };
    while !newest.is_empty() {
        found.unique_states += newest.len();
        found.depth += 1;
        let level = expand(protocol, &newest, &seen, violated);
        found.states += level.states;
        if level.violated.is_some() {
            found.violated = level.violated;
            break;
        }
        newest = level.next;
    }
    found
}

/// What follows upon the states of a level, or a part of it.
#[derive(Default)]
struct Expanded {
    states: usize,
    next: Vec<State>,
    violated: Option<&'static str>,
}

fn expand(
    protocol: &Protocol,
    level: &[State],
    seen: &Seen,
    violated: impl Fn(&State) -> Option<&'static str> + Sync,
) -> Expanded {
    let expand_part = |part: &[State]| {
        let mut expanded = Expanded::default();
        let mut steps = Vec::new();
        for state in part {
            expanded.violated = expanded.violated.or(violated(state));
            protocol.actions(state, &mut steps);
            for after in steps.drain(..).filter_map(|step| protocol.after(state, step)) {
                expanded.states += 1;
                if seen.is_new(&after) {
                    expanded.next.push(after);
                }
            }
        }
        expanded
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut whole = Expanded::default();
    thread::scope(|scope| {
        let parts = level.chunks(level.len().div_ceil(threads));
        let running: Vec<_> = parts.map(|part| scope.spawn(|| expand_part(part))).collect();
        for part in running {
            let mut part = part.join().expect("a panic ends the search");
            whole.states += part.states;
            whole.next.append(&mut part.next);
            whole.violated = whole.violated.or(part.violated);
        }
    });
    whole
}

/// The fingerprints of all states that were reached.
struct Seen {
    shards: Vec<Mutex<HashSet<u64, BuildHasherDefault<Same>>>>,
    hasher: std::hash::RandomState,
}

impl Seen {
    fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: std::hash::RandomState::new(),
        }
    }

    /// Adds a state, and returns whether it was reached for the first time.
    fn is_new(&self, state: &State) -> bool {
        let fingerprint = self.hasher.hash_one(state);
        // Neither the lowest nor the highest bits, which the set itself uses.
        let shard = usize::try_from((fingerprint >> 40) % SHARDS).expect("less than 256");
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        shard.insert(fingerprint)
    }
}

/// A fingerprint is its own hash.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed")
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
