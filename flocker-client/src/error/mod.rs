//! What can go wrong between a caller and the control service.
//!
//! A caller decides by [`Error::outcome`] or by variant, a person reads the text: every message says which request
//! went to which control service and, where that is known, what to do. No message repeats its source, so print the
//! whole chain.

mod answered;
mod api_call;
mod classify;
mod kind;
mod text;

pub use self::{
    answered::Answered,
    api_call::ApiCall,
    kind::{DecodeError, Refusal, TlsKind, TransportKind},
};
pub(crate) use self::{
    answered::{is_json, is_markup, unsuccessful},
    api_call::Target,
    classify::{failed_request, may_be_repeated},
    text::{excerpt, one_line},
};

use std::{error::Error as StdError, fmt, time::SystemTime};

use crate::{Credentials, CredentialsError, TakenId, endpoint::DATASET_DELETED};

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings or an argument that no request can be made with; nothing was sent.
    #[error("{problem}")]
    Invalid {
        /// What cannot be used, and why.
        problem: String,
        /// The error of the TLS library, if it has one.
        #[source]
        source: Option<Cause>,
    },

    /// The user's certificate, its key or the cluster's certificate cannot be used; nothing was sent.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),

    /// The connection could not be made or was closed, or the answer did not arrive in time.
    #[error("{}", kind.message(call))]
    #[non_exhaustive]
    Transport {
        /// The request that failed.
        call: Box<ApiCall>,
        /// How it failed.
        kind: TransportKind,
        /// Whether the request may have reached the control service.
        sent: bool,
        /// The lowest cause.
        source: Cause,
    },

    /// The control service could not be trusted, or the TLS handshake failed.
    #[error("{}", kind.message(call))]
    #[non_exhaustive]
    Tls {
        /// The request that was not sent.
        call: Box<ApiCall>,
        /// What was wrong.
        kind: TlsKind,
        /// The error of the TLS library.
        source: Cause,
    },

    /// The control service refused the user's certificate; the request was not carried out.
    #[error("{}", refusal.message(call))]
    #[non_exhaustive]
    Certificate {
        /// The request that was not carried out.
        call: Box<ApiCall>,
        /// The reason that the control service gave.
        refusal: Refusal,
        /// The error of the TLS library.
        source: Cause,
    },

    /// One of the client's certificates is outside its validity, and no connection was made to the control service, which may
    /// be for that reason; the request was not carried out.
    #[error("{certificate}")]
    #[non_exhaustive]
    OutOfDate {
        /// The certificate, and when it was valid.
        certificate: Box<CredentialsError>,
        /// How the connection failed: [`Self::Tls`] or [`Self::Certificate`].
        source: Box<Self>,
    },

    /// The answer has a status other than success.
    #[error(
        "the Flocker control service at {} answered {call} with status {status}: {description}{}",
        call.service(),
        list(errors)
    )]
    #[non_exhaustive]
    Status {
        /// The request that was answered.
        call: Box<ApiCall>,
        /// HTTP status.
        status: u16,
        /// Flocker's own description, or what the answer contains instead: one line of limited length.
        description: String,
        /// Flocker's findings about the request, usually none.
        errors: Vec<String>,
        /// Who gave the answer.
        answered: Answered,
        /// The dataset that has the id of the one that was to be created, where the answer describes it.
        taken: Option<TakenId>,
    },

    /// The answer has a status of success, but not the content that Flocker's API defines.
    #[error(
        "the answer of the Flocker control service at {} to {call} is not what its API defines",
        call.service()
    )]
    #[non_exhaustive]
    Decode {
        /// The request that was answered.
        call: Box<ApiCall>,
        /// What was wrong with the answer.
        source: DecodeError,
    },
}

/// What a failure means for the request, which is what a caller needs to know to decide on the next step.
///
/// A match on it is meant to be exhaustive, so it will not get more variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Flocker itself has read the request and refuses it. Nothing has changed, and repeating the request is useless as
    /// long as Flocker's configuration stays the same. This is the only outcome that is final.
    Refused,
    /// Nothing has changed, and the request may succeed later: it was not sent, or it was a read.
    WithoutEffect,
    /// The write may have been carried out, may be carried out later, or never. Read the state again before deciding.
    Unclear,
}

impl Error {
    /// Returns what the failure means for the request.
    ///
    /// Every answer that is not Flocker's own leaves a write unclear, with any status: nothing proves what a
    /// proxy did with the request before it answered.
    pub fn outcome(&self) -> RequestOutcome {
        let failed = |call: &ApiCall| {
            if call.is_write() {
                RequestOutcome::Unclear
            } else {
                RequestOutcome::WithoutEffect
            }
        };
        match self {
            Self::Status {
                answered: Answered::Flocker,
                ..
            } => RequestOutcome::Refused,
            Self::Transport { call, sent: true, .. }
            | Self::Status { call, .. }
            | Self::Decode { call, .. } => failed(call),
            Self::Transport { sent: false, .. }
            | Self::Invalid { .. }
            | Self::Credentials(_)
            | Self::Tls { .. }
            | Self::Certificate { .. } => RequestOutcome::WithoutEffect,
            Self::OutOfDate { source, .. } => source.outcome(),
        }
    }

    /// Returns the HTTP status of an answer that reports no success, from Flocker or not.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Returns whether Flocker itself answered, though not with success: something else may have, such as a proxy.
    pub fn is_flockers_answer(&self) -> bool {
        matches!(
            self,
            Self::Status {
                answered: Answered::Flocker | Answered::LogId,
                ..
            }
        )
    }

    /// Returns whether the request conflicts with Flocker's configuration: a dataset id in use, or a lease held by
    /// another node (409).
    pub fn is_conflict(&self) -> bool {
        self.is_refusal(409)
    }

    /// Returns which dataset has the id of the one that was to be created, if that is the reason of a conflict and the control
    /// service has the extension `tombstones`. Without it, only a list shows whether that dataset is deleted.
    pub fn taken_id(&self) -> Option<TakenId> {
        match self {
            Self::Status { taken, .. } => *taken,
            _ => None,
        }
    }

    /// Returns whether Flocker knows no object of the id in the request (404).
    ///
    /// False for a 404 that is not Flocker's own, such as the HTML page for an unknown route: to infer from one that a
    /// dataset does not exist would be fatal.
    pub fn is_not_found(&self) -> bool {
        self.is_refusal(404)
    }

    /// Returns whether the dataset in the request has been deleted (405).
    pub fn is_deleted(&self) -> bool {
        self.is_refusal(DATASET_DELETED.status)
    }

    /// Returns whether a write may or may not have been carried out: [`RequestOutcome::Unclear`].
    pub fn is_unclear(&self) -> bool {
        self.outcome() == RequestOutcome::Unclear
    }

    /// Returns the request that failed, if there was one.
    pub fn call(&self) -> Option<&ApiCall> {
        match self {
            Self::Transport { call, .. }
            | Self::Tls { call, .. }
            | Self::Certificate { call, .. }
            | Self::Status { call, .. }
            | Self::Decode { call, .. } => Some(call),
            Self::OutOfDate { source, .. } => source.call(),
            Self::Invalid { .. } | Self::Credentials(_) => None,
        }
    }

    /// Names the certificate in the failure to connect with one that is outside its validity. A request is sent with one
    /// nevertheless: only the other side's clock decides, and a connection that exists stays in use.
    pub(crate) fn naming_out_of_date(self, credentials: &Credentials) -> Self {
        let is_of_certificates = match &self {
            Self::Tls { kind, .. } => *kind != TlsKind::NotTls,
            Self::Certificate { .. } => true,
            _ => false,
        };
        match is_of_certificates
            .then(|| credentials.out_of_date(SystemTime::now()))
            .flatten()
        {
            Some(certificate) => Self::OutOfDate {
                certificate: Box::new(certificate),
                source: Box::new(self),
            },
            None => self,
        }
    }

    fn is_refusal(&self, wanted: u16) -> bool {
        self.outcome() == RequestOutcome::Refused && self.status() == Some(wanted)
    }
}

/// The lowest cause of a failure, in the words of the library that reported it.
///
/// The layers in between add nothing that helps a person, so they appear in the `Debug` form only.
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
