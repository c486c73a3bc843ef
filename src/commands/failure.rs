//! How a command ends when it fails.

use std::fmt::Display;
use std::process::ExitCode;

use crate::error;

/// Why a command ended without having done what it was asked for.
#[derive(Debug)]
pub enum Failure {
    /// It was told something that cannot be: one sentence for each mistake. Exit status 2.
    Configuration(Vec<String>),
    /// What it was to work on cannot be: one sentence for each reason. Exit status 1.
    Refused(Vec<String>),
    /// It did not succeed. Exit status 1.
    Failed(String),
}

impl Failure {
    /// Makes the failure of a setting that is wrong.
    pub fn configuration(text: impl Into<String>) -> Self {
        Self::Configuration(vec![text.into()])
    }

    /// Makes the failure that `error` is, with everything that caused it.
    pub fn of(error: &dyn std::error::Error) -> Self {
        Self::Failed(error::chain(error))
    }

    /// Makes the failure of something that could not be done because of `error`.
    pub fn while_doing(doing: impl Display, error: &dyn std::error::Error) -> Self {
        Self::Failed(format!("cannot {doing}: {}", error::chain(error)))
    }

    /// Returns the lines that tell a person what happened.
    pub fn lines(&self) -> &[String] {
        match self {
            Self::Configuration(lines) | Self::Refused(lines) => lines,
            Self::Failed(line) => std::slice::from_ref(line),
        }
    }

    /// Returns the exit status of the process.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) => ExitCode::from(2),
            Self::Refused(_) | Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_the_whole_chain_in_one_line() {
        let cause = error::Error::internal("read /x", std::io::Error::other("disk on fire"));
        let failure = Failure::while_doing("start the plugin", &cause);
        assert_eq!(
            failure.lines(),
            ["cannot start the plugin: cannot read /x: disk on fire"]
        );
    }
}
