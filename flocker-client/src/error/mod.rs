//! What can go wrong between a caller and the control service.
//!
//! A caller decides by variant, a person reads the text: every message says what was asked of which control
//! service and, where it is known, what to do. No message repeats its source, so print the whole chain.

mod call;
mod classify;
mod kind;
mod text;

pub use self::{
    call::Call,
    kind::{Answered, DecodeError, Refusal, TlsKind, TransportKind},
};
pub(crate) use self::{
    call::Target,
    classify::{failed_request, may_be_sent_again},
    text::{excerpt, one_line},
};

use std::{error::Error as StdError, fmt};

use crate::CredentialsError;

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings or an argument that no request can be made with; nothing was sent.
    #[error("{problem}")]
    Invalid {
        /// What cannot be used, and why.
        problem: String,
        /// What the TLS library says to it.
        #[source]
        source: Option<Cause>,
    },

    /// The files a user shows to the control service cannot be used; nothing was sent.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),

    /// The connection could not be made, or broke, or the answer did not come in time.
    #[error("{}", kind.message(call))]
    Transport {
        /// The request that failed.
        call: Box<Call>,
        /// How it failed.
        kind: TransportKind,
        /// Whether the request may have reached the control service.
        sent: bool,
        /// The lowest cause.
        source: Cause,
    },

    /// The control service could not be trusted, or no TLS session came about.
    #[error("{}", kind.message(call))]
    Tls {
        /// The request that was not made.
        call: Box<Call>,
        /// What was wrong.
        kind: TlsKind,
        /// What the TLS library says to it.
        source: Cause,
    },

    /// The control service refused our certificate; the request was not carried out.
    #[error("{}", refusal.message(call))]
    Certificate {
        /// The request that was not carried out.
        call: Box<Call>,
        /// How the control service put it.
        refusal: Refusal,
        /// What the TLS library says to it.
        source: Cause,
    },

    /// The control service answered with a status other than success.
    #[error(
        "the Flocker control service at {} answered {call} with status {status}: {description}{}",
        call.service(),
        list(errors)
    )]
    Status {
        /// The request that was answered.
        call: Box<Call>,
        /// HTTP status.
        status: u16,
        /// Flocker's own description, or what came instead of one; always one line of bounded length.
        description: String,
        /// Flocker's findings about the request, usually none.
        errors: Vec<String>,
        /// Whose words the description is.
        answered: Answered,
    },

    /// The control service answered with success, but not with what its API defines.
    #[error(
        "the answer of the Flocker control service at {} to {call} is not what its API defines",
        call.service()
    )]
    Decode {
        /// The request that was answered.
        call: Box<Call>,
        /// What was wrong with the answer.
        source: DecodeError,
    },
}

impl Error {
    /// Returns the HTTP status with which the control service refused the request.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Tells whether Flocker found the request in conflict with what there is: a dataset id in use, or a
    /// lease held by another node (409).
    pub fn is_conflict(&self) -> bool {
        self.is_flockers(409)
    }

    /// Tells whether Flocker knows nothing by the id in the request (404).
    ///
    /// A 404 that is not Flocker's own, such as the HTML page for an unknown route, is none of these: taking
    /// it for the absence of a dataset would be fatal.
    pub fn is_not_found(&self) -> bool {
        self.is_flockers(404)
    }

    /// Tells whether the dataset in the request has been deleted (405 with Flocker's own description).
    pub fn is_gone_deleted(&self) -> bool {
        self.is_flockers(405)
            && matches!(self, Self::Status { description, .. } if description.contains("has been deleted"))
    }

    /// Tells whether a write may or may not have been carried out.
    ///
    /// So it is after a connection that broke or a time-out once the request may have been sent, after a
    /// status of 500 or more, and after an answer that cannot be read. Read the state again before deciding.
    /// Always false for reads, and for writes that certainly had no effect.
    pub fn is_unclear(&self) -> bool {
        match self {
            Self::Transport { call, sent, .. } => *sent && call.is_write(),
            Self::Status { call, status, .. } => *status >= 500 && call.is_write(),
            Self::Decode { call, .. } => call.is_write(),
            Self::Invalid { .. } | Self::Credentials(_) | Self::Tls { .. } | Self::Certificate { .. } => {
                false
            }
        }
    }

    /// Returns the request that failed, if one had been begun.
    pub fn call(&self) -> Option<&Call> {
        match self {
            Self::Transport { call, .. }
            | Self::Tls { call, .. }
            | Self::Certificate { call, .. }
            | Self::Status { call, .. }
            | Self::Decode { call, .. } => Some(call),
            Self::Invalid { .. } | Self::Credentials(_) => None,
        }
    }

    fn is_flockers(&self, wanted: u16) -> bool {
        matches!(self, Self::Status { status, answered: Answered::Flocker, .. } if *status == wanted)
    }
}

/// The lowest cause of a failure, in the words of the library that met it.
///
/// The layers in between say nothing a person can use, so they appear in the `Debug` form only.
#[derive(Debug)]
pub struct Cause(Box<dyn StdError + Send + Sync>);

impl Cause {
    pub(crate) fn new(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lowest: &(dyn StdError + 'static) = self.0.as_ref();
        while let Some(below) = lowest.source() {
            lowest = below;
        }
        fmt::Display::fmt(lowest, f)
    }
}

impl StdError for Cause {}

fn list(errors: &[String]) -> String {
    if errors.is_empty() {
        String::new()
    } else {
        format!(" ({})", errors.join("; "))
    }
}
