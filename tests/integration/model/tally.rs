//! Counts how often each call was answered in each way: random sequences prove nothing about paths that they miss.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::calls::Action;
use super::scenarios::Answer;

#[derive(Default)]
pub(super) struct Tally(Mutex<Counts>);

type Counts = BTreeMap<(&'static str, String), u32>;

/// Events of a sequence beside answers.
pub(super) const TAKEN_OVER: &str = "taken over";
pub(super) const RESTARTED: &str = "restarted";
/// `gc --apply` has removed what was left, or was refused.
pub(super) const COLLECTED: &str = "collected";
pub(super) const NOT_COLLECTED: &str = "not collected";

const EVENTS: [&str; 4] = [TAKEN_OVER, RESTARTED, COLLECTED, NOT_COLLECTED];

impl Tally {
    /// Counts an event.
    pub(super) fn note(&self, what: &'static str) {
        *self.lock().entry((what, String::new())).or_default() += 1;
    }

    pub(super) fn count(&self, action: Action, answer: Answer) {
        let answer = match answer {
            Answer::Done | Answer::Made(_) => "done".to_owned(),
            Answer::Refused(code) => format!("{code:?}"),
            Answer::Open => "open".to_owned(),
        };
        *self.lock().entry((name(action), answer)).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every call was carried out and, where that must occur, refused and left open.
    pub(super) fn is_varied(&self) -> bool {
        let met = |name: &str, test: &dyn Fn(&str) -> bool| {
            self.lock()
                .keys()
                .any(|(action, answer)| *action == name && test(answer))
        };
        let refused = |answer: &str| answer != "done" && answer != "open";
        NAMES.iter().all(|name| met(name, &|answer| answer == "done"))
            && REFUSED.iter().all(|name| met(name, &refused))
            && OPEN.iter().all(|name| met(name, &|answer| answer == "open"))
            && EVENTS.iter().all(|what| met(what, &|_| true))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((action, answer), count) in &*self.lock() {
            writeln!(f, "{action:<13} {answer:<20} {count:>6}")?;
        }
        Ok(())
    }
}

const NAMES: [&str; 8] = [
    "create",
    "delete",
    "attach",
    "detach",
    "stage",
    "unstage",
    "publish",
    "unpublish",
];
const REFUSED: [&str; 6] = ["create", "delete", "attach", "stage", "unstage", "publish"];
const OPEN: [&str; 2] = ["create", "stage"];

fn name(action: Action) -> &'static str {
    match action {
        Action::Create { .. } => "create",
        Action::Delete { .. } => "delete",
        Action::Attach { .. } => "attach",
        Action::Detach { .. } => "detach",
        Action::Stage { .. } => "stage",
        Action::Unstage { .. } => "unstage",
        Action::Publish { .. } => "publish",
        Action::Unpublish { .. } => "unpublish",
    }
}
