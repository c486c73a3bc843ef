use std::time::Duration;

use super::Call;

/// How a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportKind {
    /// The host name has no address, or could not be looked up.
    Lookup,
    /// Nothing listens at the address.
    Refused,
    /// There is no way to the address.
    Unreachable,
    /// The connection, TLS included, did not come about within this time.
    ConnectTimeout(Duration),
    /// The answer had not arrived in full within this time.
    Timeout(Duration),
    /// The connection was closed before the answer had arrived in full.
    Closed,
    /// Anything else, such as an answer that is no HTTP.
    Other,
}

impl TransportKind {
    pub(super) fn message(self, call: &Call) -> String {
        let at = format!("the Flocker control service at {}", call.service());
        match self {
            Self::Lookup => format!("the host name of {at} cannot be looked up"),
            Self::Refused => format!("{at} refuses connections: is it running, and is this its REST port?"),
            Self::Unreachable => format!("the host of {at} cannot be reached"),
            Self::ConnectTimeout(limit) => format!("{at} did not accept a connection within {limit:?}"),
            Self::Timeout(limit) => format!("{at} did not answer {call} within {limit:?}"),
            Self::Closed => format!("{at} closed the connection before it had answered {call}"),
            Self::Other => format!("the exchange with {at} failed during {call}"),
        }
    }
}

/// Why the control service could not be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsKind {
    /// Its certificate is not made out to the name that was expected.
    WrongName {
        /// The name that was expected.
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
        /// What OpenSSL says.
        verdict: String,
    },
    /// The other side does not speak TLS.
    NotTls,
    /// The handshake failed for a reason that has nothing to do with certificates.
    Handshake,
}

impl TlsKind {
    pub(super) fn message(&self, call: &Call) -> String {
        let at = format!("the Flocker control service at {}", call.service());
        match self {
            Self::WrongName { expected } => {
                format!(
                    "the certificate of {at} is not made out to the expected name `{expected}`: \
                     set server_name to the name it carries, which is `control-service` unless the \
                     cluster was set up otherwise"
                )
            }
            Self::UnknownAuthority => {
                format!(
                    "the certificate of {at} is not signed by our cluster certificate: \
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
            Self::Handshake => format!("no TLS session with {at} came about"),
        }
    }
}

/// How the control service refused our certificate: the TLS alert that it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It got no certificate (alert 116, TLS 1.3).
    Missing,
    /// It got no certificate, or none that it can use (alert 40, which TLS 1.2 has for a missing one).
    Unacceptable,
    /// It does not know the authority that signed the certificate (alert 48).
    UnknownAuthority,
    /// The certificate is not a user's (alert 80: Flocker's own check failed).
    NotUser,
    /// The certificate has expired by the clock of the control service (alert 45).
    Expired,
    /// Another alert about certificates, by its number.
    Other(u8),
}

impl Refusal {
    /// Returns what an alert says about our certificate; `None` if it is about something else.
    pub(super) fn from_alert(alert: u8) -> Option<Self> {
        match alert {
            116 => Some(Self::Missing),
            40 => Some(Self::Unacceptable),
            48 => Some(Self::UnknownAuthority),
            80 => Some(Self::NotUser),
            45 => Some(Self::Expired),
            // bad_certificate, unsupported_certificate, certificate_revoked, certificate_unknown,
            // access_denied, decrypt_error (the signature made with our key)
            42 | 43 | 44 | 46 | 49 | 51 => Some(Self::Other(alert)),
            _ => None,
        }
    }

    pub(super) fn message(self, call: &Call) -> String {
        let at = format!("the Flocker control service at {}", call.service());
        match self {
            Self::Missing => format!("{at} asks for a user certificate and got none"),
            Self::Unacceptable => {
                format!("{at} refused the TLS handshake: it got no user certificate that it can use")
            }
            Self::UnknownAuthority => format!(
                "{at} refused our user certificate as signed by an authority it does not know: \
                 it belongs to another cluster"
            ),
            Self::NotUser => format!(
                "{at} refused our certificate; it accepts user certificates only, which \
                 `flocker-ca create-api-certificate NAME` makes"
            ),
            Self::Expired => format!("{at} refused our user certificate as expired"),
            Self::Other(alert) => format!("{at} refused our user certificate with TLS alert {alert}"),
        }
    }
}

/// Whose words the description of a status is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// Flocker's own: a JSON object with a `description`.
    Flocker,
    /// Flocker met an error of its own and gave the id under which its log tells more.
    LogId,
    /// An HTML page: an unknown route, or something else that answers at this address.
    Html,
    /// Anything else.
    Other,
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A field is missing or has a value that does not fit.
    #[error("at `{field}`, near `{excerpt}`")]
    Field {
        /// The path of the field, such as `[3].primary`.
        field: String,
        /// The text around the place, one line of bounded length.
        excerpt: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// It is an HTML page: something other than Flocker answers at this address.
    #[error("it is an HTML page; something other than Flocker answers there")]
    Html,
    /// It is longer than any answer may be.
    #[error("it is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}
