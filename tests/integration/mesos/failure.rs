//! Failures of Mesos' operations, in its own words.

use std::fmt;

use tonic::{Code, Status};

/// The outcome of an operation of Mesos that does not succeed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The plugin answered an error.
    Rpc(Status),
    /// The plugin answered OK without the required effect; or Mesos itself could not continue.
    Mesos(String),
}

impl Failure {
    /// Returns the code that the plugin answered.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Rpc(status) => Some(status.code()),
            Self::Mesos(_) => None,
        }
    }

    /// Puts context before it, as Mesos does.
    pub(crate) fn context(self, words: &str) -> Self {
        Self::Mesos(format!("{words}: {self}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rpc(status) => write!(f, "{}: {}", name_of(status.code()), status.message()),
            Self::Mesos(text) => f.write_str(text),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Rpc(status)
    }
}

/// Makes a failure of Mesos' own.
pub(crate) fn failed<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Mesos(text.into()))
}

fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
