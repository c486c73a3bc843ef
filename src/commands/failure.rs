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
    fn a_failure_has_the_whole_chain_in_one_line() {
        let cause = error::Error::internal("read /x", std::io::Error::other("disk on fire"));
        let failure = Failure::context("start the plugin", &cause);
        assert_eq!(
            failure.lines(),
            ["cannot start the plugin: cannot read /x: disk on fire"]
        );
    }
}
