//! The failure of a command.

use std::fmt::Display;
use std::process::ExitCode;

use crate::error;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// Arguments or settings are wrong: one sentence for each. Exit status 2.
    Configuration(Vec<String>),
    /// The input cannot be used: one sentence for each reason. Exit status 1.
    Refused(Vec<String>),
    /// The work failed. Exit status 1.
    Failed(String),
    /// The command has printed what it found.
    Found(FoundFault),
}

/// What a command that checks has found, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoundFault {
    /// Only warnings. Exit status 3.
    Warning,
    /// A fault of the cluster or of this machine. Exit status 1.
    Fault,
    /// A fault of the settings, or of the files that they name. Exit status 2.
    Configuration,
}

impl Failure {
    /// Returns the failure of a wrong setting.
    pub(crate) fn configuration(text: impl Into<String>) -> Self {
        Self::Configuration(vec![text.into()])
    }

    /// Returns the failure with the message of `error` and all its causes.
    pub(crate) fn of(error: &dyn std::error::Error) -> Self {
        Self::Failed(error::chain(error))
    }

    /// Returns the failure of an action, an infinitive such as "start the runtime", with the message of `error` and all
    /// its causes.
    pub fn context(action: impl Display, error: &dyn std::error::Error) -> Self {
        Self::Failed(format!("cannot {action}: {}", error::chain(error)))
    }

    /// Returns the message, one line for each problem.
    pub fn lines(&self) -> &[String] {
        match self {
            Self::Configuration(lines) | Self::Refused(lines) => lines,
            Self::Failed(line) => std::slice::from_ref(line),
            Self::Found(_) => &[],
        }
    }

    /// Returns the exit status of the process.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) | Self::Found(FoundFault::Configuration) => ExitCode::from(2),
            Self::Refused(_) | Self::Failed(_) | Self::Found(FoundFault::Fault) => ExitCode::FAILURE,
            Self::Found(FoundFault::Warning) => ExitCode::from(3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_whole_chain_in_one_line() {
        let cause = error::Error::internal("read /x", std::io::Error::other("disk on fire"));
        let failure = Failure::context("start the plugin", &cause);
        assert_eq!(
            failure.lines(),
            ["cannot start the plugin: cannot read /x: disk on fire"]
        );
    }
}
