use std::time::Duration;

use super::ApiCall;

/// How a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportKind {
    /// The host name has no address, or could not be looked up.
    Lookup,
    /// Nothing listens at the address.
    Refused,
    /// The network has no route to the address.
    Unreachable,
    /// The connection, TLS included, was not established within this time.
    ConnectTimeout(Duration),
    /// The answer did not arrive in full within this time.
    Timeout(Duration),
    /// The connection was closed before the answer arrived in full.
    Closed,
    /// Anything else, such as an answer that is no HTTP.
    Other,
}

impl TransportKind {
    pub(super) fn message(self, call: &ApiCall) -> String {
        let at = format!("the Flocker control service at {}", call.service());
        match self {
            Self::Lookup => format!("the host name of {at} cannot be looked up"),
            Self::Refused => format!("{at} refuses connections: is it running, and is this its REST port?"),
            Self::Unreachable => format!("the host of {at} cannot be reached"),
            Self::ConnectTimeout(limit) => format!("{at} did not accept a connection within {limit:?}"),
            Self::Timeout(limit) => format!("{at} did not answer {call} within {limit:?}"),
            Self::Closed => format!("{at} closed the connection before it answered {call}"),
            Self::Other => format!("{call} to {at} failed"),
        }
    }
}

/// Why the control service could not be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsKind {
    /// Its certificate does not carry the expected name.
    WrongName {
        /// The expected name.
        expected: String,
    },
    /// Its certificate is not signed by the cluster certificate.
    UnknownAuthority,
    /// Its certificate, or the one that signed it, has expired.
    Expired,
    /// Its certificate, or the one that signed it, is not valid yet.
    NotYetValid,
    /// Its certificate is not acceptable for another reason.
    Untrusted {
        /// The reason that OpenSSL gives.
        verdict: String,
    },
    /// The peer does not speak TLS.
    NotTls,
    /// The handshake failed for a reason other than a certificate.
    Handshake,
}

impl TlsKind {
    pub(super) fn message(&self, call: &ApiCall) -> String {
        let at = format!("the Flocker control service at {}", call.service());
        match self {
            Self::WrongName { expected } => {
                format!(
                    "the certificate of {at} does not carry the expected name `{expected}`: \
                     set server_name to the name that it carries, which is `control-service` unless the \
                     cluster was set up otherwise"
                )
            }
            Self::UnknownAuthority => {
                format!(
                    "the certificate of {at} is not signed by the given cluster certificate: \
                     they belong to different clusters"
                )
            }
            Self::Expired => {
                format!("the certificate of {at} has expired, or the clock of this machine is ahead")
            }
            Self::NotYetValid => {
                format!("the certificate of {at} is not valid yet, or the clock of this machine is behind")
            }
            Self::Untrusted { verdict } => format!("the certificate of {at} cannot be trusted ({verdict})"),
            Self::NotTls => format!(
                "what answers at {} does not speak TLS: is this the REST port?",
                call.service()
            ),
            Self::Handshake => format!("the TLS handshake with {at} failed"),
        }
    }
}

/// Why the control service refused the user's certificate, by the TLS alert that it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It got no certificate (alert 116, TLS 1.3).
    Missing,
    /// It got no certificate, or none that it can use (alert 40, which TLS 1.2 sends for a missing one).
    Unacceptable,
    /// It does not know the authority that signed the certificate (alert 48).
    UnknownAuthority,
    /// The certificate is not a user's (alert 80: Flocker's own check of the name failed).
    NotUser,
    /// The certificate has expired by the clock of the control service (alert 45).
    Expired,
    /// Another alert about certificates, by its number.
    Other(u8),
}

impl Refusal {
    /// Returns what an alert says about the user's certificate; `None` for an alert about something else.
    pub(super) fn from_alert(alert: u8) -> Option<Self> {
        match alert {
            116 => Some(Self::Missing),
            40 => Some(Self::Unacceptable),
            48 => Some(Self::UnknownAuthority),
            80 => Some(Self::NotUser),
            45 => Some(Self::Expired),
            // bad_certificate, unsupported_certificate, certificate_revoked, certificate_unknown,
            // access_denied, decrypt_error (the signature made with the user's key)
            42 | 43 | 44 | 46 | 49 | 51 => Some(Self::Other(alert)),
            _ => None,
        }
    }

    pub(super) fn message(self, call: &ApiCall) -> String {
        let at = format!("the Flocker control service at {}", call.service());
        match self {
            Self::Missing => format!("{at} asks for a user certificate and got none"),
            Self::Unacceptable => {
                format!("{at} refused the TLS handshake: it got no user certificate that it can use")
            }
            Self::UnknownAuthority => format!(
                "{at} refused the user certificate, because it does not know the authority \
                 that signed it: it belongs to another cluster"
            ),
            Self::NotUser => format!(
                "{at} refused the certificate; it accepts user certificates only, which \
                 `flocker-ca create-api-certificate NAME` makes"
            ),
            Self::Expired => format!("{at} refused the user certificate as expired"),
            Self::Other(alert) => format!("{at} refused the user certificate with TLS alert {alert}"),
        }
    }
}

/// What is wrong with an answer that has a status of success.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A field is missing or has a value that is not allowed.
    #[error("at `{field}`, near `{excerpt}`")]
    #[non_exhaustive]
    Field {
        /// The path of the field, such as `[3].primary`.
        field: String,
        /// The text around it, one line of limited length.
        excerpt: String,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// A field that decides what an entry means is missing or has a value that is not allowed.
    #[error("{reason}")]
    #[non_exhaustive]
    Entry {
        /// Names the field, with the beginning of its text: one line of limited length.
        reason: String,
    },
    /// A field contradicts the request: the answer belongs to another request.
    #[error("its `{field}` is not the one in the request")]
    #[non_exhaustive]
    Mismatch {
        /// The name of the field.
        field: &'static str,
    },
    /// Flocker does not answer this request with this status.
    #[error("its status is {status}, which Flocker never gives for this request")]
    #[non_exhaustive]
    Status {
        /// HTTP status.
        status: u16,
    },
    /// It is an HTML page.
    #[error("it is an HTML page; something other than Flocker answers there")]
    Html,
    /// Its content type is not the one of Flocker's answers.
    #[error(
        "its content type is `{content_type}`, not `application/json`; something other than Flocker answers there"
    )]
    #[non_exhaustive]
    NotJson {
        /// The content type, or `none`.
        content_type: String,
    },
    /// It ends within a list.
    #[error("it ends before the end of the list")]
    Unended,
    /// It is longer than an answer of Flocker can be.
    #[error("it is longer than {limit} bytes")]
    #[non_exhaustive]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}
