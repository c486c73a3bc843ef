//! What a check has found.

use serde::Serialize;

/// The result of a check, the most harmless first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// It could not be made, for a reason that another check reports, or does not concern this plugin.
    Skipped,
    /// What was seen is as it should be.
    Ok,
    /// It deserves attention.
    Warning,
    /// It keeps volumes from being used.
    Error,
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) outcome: Outcome,
    /// What was seen.
    pub(super) seen: String,
    /// What to do next, as a sentence.
    pub(super) next: Option<String>,
    /// The command that does it, where there is one.
    pub(super) command: Option<String>,
}

impl Finding {
    pub(super) fn ok(seen: impl Into<String>) -> Self {
        Self::new(Outcome::Ok, seen)
    }

    pub(super) fn warning(seen: impl Into<String>) -> Self {
        Self::new(Outcome::Warning, seen)
    }

    pub(super) fn error(seen: impl Into<String>) -> Self {
        Self::new(Outcome::Error, seen)
    }

    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self::new(Outcome::Skipped, why)
    }

    fn new(outcome: Outcome, seen: impl Into<String>) -> Self {
        Self {
            outcome,
            seen: seen.into(),
            next: None,
            command: None,
        }
    }

    /// Adds what to do.
    pub(super) fn next(self, next: impl Into<String>) -> Self {
        Self {
            next: Some(next.into()),
            ..self
        }
    }

    /// Adds what to do, and the command that does it.
    pub(super) fn command(self, next: impl Into<String>, command: impl Into<String>) -> Self {
        Self {
            next: Some(next.into()),
            command: Some(command.into()),
            ..self
        }
    }
}
