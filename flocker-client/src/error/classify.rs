//! Finds out what a failed request means, from the chain of causes the HTTP and TLS libraries leave.

use std::{error::Error as StdError, io};

use openssl::error::ErrorStack;

use super::{Call, Cause, Error, Refusal, Target, TlsKind, TransportKind};

/// OpenSSL's numbers of the libraries that report errors: `ERR_LIB_SYS` and `ERR_LIB_SSL`.
const LIBRARY_SYSTEM: i32 = 2;
const LIBRARY_SSL: i32 = 20;

/// Reasons of the latter; alerts of the other side are those above 1000.
const CERTIFICATE_VERIFY_FAILED: i32 = 134;
const WRONG_VERSION_NUMBER: i32 = 267;
const UNEXPECTED_EOF: i32 = 294;
const ALERT_BASE: i32 = 1000;

/// Turns the failure of a request, or of reading its answer, into the error that says what happened.
pub(crate) fn failed_request(target: &Target, call: Call, error: reqwest::Error) -> Error {
    // The URL holds the server name, not the host that was dialled.
    let error = error.without_url();
    let call = Box::new(call);
    let sent = !error.is_connect() && !error.is_builder();
    let finding = match tls_finding(&error, &target.server_name) {
        // Once a session is there, what breaks it says nothing about trust, and the request may be under way.
        Some(Finding::Tls(_)) if sent => Finding::Transport(TransportKind::Other),
        Some(finding) => finding,
        None => Finding::Transport(transport_kind(&error, target)),
    };
    let source = Cause::new(error);
    match finding {
        Finding::Refused(refusal) => Error::Certificate {
            call,
            refusal,
            source,
        },
        Finding::Tls(kind) => Error::Tls { call, kind, source },
        Finding::Transport(kind) => Error::Transport {
            call,
            kind,
            sent,
            source,
        },
    }
}

/// Tells whether a request may be sent once more: it changes nothing, and the connection was closed under it.
pub(crate) fn may_be_sent_again(error: &Error) -> bool {
    match error {
        Error::Transport { call, kind, sent, .. } => {
            *kind == TransportKind::Closed && *sent && !call.is_write()
        }
        _ => false,
    }
}

enum Finding {
    Refused(Refusal),
    Tls(TlsKind),
    Transport(TransportKind),
}

fn tls_finding(error: &reqwest::Error, server_name: &str) -> Option<Finding> {
    let stack = chain(error).find_map(|error| error.downcast_ref::<ErrorStack>())?;
    if let Some(kind) = stack.errors().iter().find_map(system_error) {
        return Some(Finding::Transport(io_kind(kind)));
    }
    let reasons = || {
        let errors = stack
            .errors()
            .iter()
            .filter(|error| error.library_code() == LIBRARY_SSL);
        errors.map(openssl::error::Error::reason_code)
    };
    if reasons().any(|reason| reason == UNEXPECTED_EOF) {
        // OpenSSL's word for a connection that ends without the TLS good-bye.
        return Some(Finding::Transport(TransportKind::Closed));
    }
    if reasons().any(|reason| reason == CERTIFICATE_VERIFY_FAILED) {
        return Some(Finding::Tls(verification_kind(error, server_name)));
    }
    if reasons().any(|reason| reason == WRONG_VERSION_NUMBER) {
        return Some(Finding::Tls(TlsKind::NotTls));
    }
    let alert = reasons().find_map(|reason| u8::try_from(reason - ALERT_BASE).ok());
    Some(match alert.and_then(Refusal::from_alert) {
        Some(refusal) => Finding::Refused(refusal),
        None => Finding::Tls(TlsKind::Handshake),
    })
}

/// How OpenSSL's verdicts begin on a certificate that no authority of ours has signed.
const UNKNOWN_AUTHORITY: &[&str] = &[
    "certificate signature failure",
    "self-signed certificate",
    "unable to get issuer certificate",
    "unable to get local issuer certificate",
    "unable to verify the first certificate",
];

/// Reads OpenSSL's verdict on the server's certificate off the text of the TLS library's error, which is the
/// only place that has it: `... (hostname mismatch)`. Some versions of OpenSSL add advice to a verdict.
fn verification_kind(error: &reqwest::Error, server_name: &str) -> TlsKind {
    let above_stack = chain(error).take_while(|error| !error.is::<ErrorStack>()).last();
    let verdict = above_stack.and_then(|error| {
        let text = error.to_string();
        let (_, verdict) = text.strip_suffix(')')?.rsplit_once('(')?;
        Some(verdict.to_owned())
    });
    let verdict = verdict.unwrap_or_else(|| "no reason given".to_owned());
    if verdict.starts_with("hostname mismatch") {
        TlsKind::WrongName {
            expected: server_name.to_owned(),
        }
    } else if verdict.starts_with("certificate has expired") {
        TlsKind::Expired
    } else if verdict.starts_with("certificate is not yet valid") {
        TlsKind::NotYetValid
    } else if UNKNOWN_AUTHORITY.iter().any(|known| verdict.starts_with(known)) {
        TlsKind::UnknownAuthority
    } else {
        TlsKind::Untrusted { verdict }
    }
}

fn transport_kind(error: &reqwest::Error, target: &Target) -> TransportKind {
    if error.is_dns() {
        return TransportKind::Lookup;
    }
    if error.is_timeout() {
        return if error.is_connect() {
            TransportKind::ConnectTimeout(target.connect_timeout)
        } else {
            TransportKind::Timeout(target.timeout)
        };
    }
    let closed =
        |error: &hyper::Error| error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    if chain(error).filter_map(|error| error.downcast_ref()).any(closed) {
        return TransportKind::Closed;
    }
    let io = chain(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .last();
    io.map_or(TransportKind::Other, |error| io_kind(error.kind()))
}

/// Returns what the system said, if that is what OpenSSL reports.
fn system_error(error: &openssl::error::Error) -> Option<io::ErrorKind> {
    if error.library_code() != LIBRARY_SYSTEM {
        return None;
    }
    // The code is the system's number under a flag; `reason_code` does not give it.
    let number = i32::try_from(error.code() & 0x7fff_ffff).ok()?;
    Some(io::Error::from_raw_os_error(number).kind())
}

fn io_kind(kind: io::ErrorKind) -> TransportKind {
    match kind {
        io::ErrorKind::ConnectionRefused => TransportKind::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => TransportKind::Unreachable,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => TransportKind::Closed,
        _ => TransportKind::Other,
    }
}

/// Walks from an error to its lowest cause.
///
/// An `io::Error` that wraps another error passes that one over in `source`, so it is looked into.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}
