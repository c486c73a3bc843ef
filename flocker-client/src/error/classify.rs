//! Finds the reason of a failed request in the chain of causes that the HTTP and TLS libraries return.

use std::{error::Error as StdError, io};

use openssl::error::ErrorStack;

use super::{ApiCall, Cause, Error, Refusal, Target, TlsKind, TransportKind};

/// OpenSSL's numbers of the libraries that report errors: `ERR_LIB_SYS` and `ERR_LIB_SSL`.
const LIBRARY_SYSTEM: i32 = 2;
const LIBRARY_SSL: i32 = 20;

/// Reasons of `ERR_LIB_SSL`. The peer's alerts are those from 1000 on.
const CERTIFICATE_VERIFY_FAILED: i32 = 134;
const WRONG_VERSION_NUMBER: i32 = 267;
const UNEXPECTED_EOF: i32 = 294;
const ALERT_BASE: i32 = 1000;

/// The texts of the HTTP library for a connection that was closed before the answer was complete. It has no type for
/// them that this crate could name without a dependency on the library below it.
const CLOSED: [&str; 3] = [
    "connection closed before message completed",
    "operation was canceled",
    "channel closed",
];

/// Turns the failure of a request, or of reading its answer, into an error that says what happened.
pub(crate) fn failed_request(target: &Target, call: ApiCall, error: reqwest::Error) -> Error {
    // The URL contains the server name, not the host that the connection goes to.
    let error = error.without_url();
    let call = Box::new(call);
    let sent = !error.is_connect() && !error.is_builder();
    let finding = match tls_finding(&error, &target.server_name) {
        // What ends an established session says nothing about trust, and the request may have been sent.
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

/// Returns whether a request may be sent a second time: it is a read, and its connection was closed.
pub(crate) fn may_be_repeated(error: &Error) -> bool {
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
    let stack = causes(error).find_map(|error| error.downcast_ref::<ErrorStack>())?;
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
        // The connection ended without the TLS message that closes a session.
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

/// How OpenSSL's verdicts on a certificate of another authority begin.
const UNKNOWN_AUTHORITY: &[&str] = &[
    "certificate signature failure",
    "self-signed certificate",
    "unable to get issuer certificate",
    "unable to get local issuer certificate",
    "unable to verify the first certificate",
];

/// Returns what OpenSSL found wrong with the server's certificate. Only the text of the TLS library's error has it:
/// `... (hostname mismatch)`. Some versions of OpenSSL append advice to it.
fn verification_kind(error: &reqwest::Error, server_name: &str) -> TlsKind {
    let above_stack = causes(error).take_while(|error| !error.is::<ErrorStack>()).last();
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
    if is_closed(error) {
        return TransportKind::Closed;
    }
    let io = causes(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .last();
    io.map_or(TransportKind::Other, |error| io_kind(error.kind()))
}

fn is_closed(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|error| CLOSED.contains(&error.to_string().as_str()))
}

/// Returns the kind of the system's error, if OpenSSL reports one.
fn system_error(error: &openssl::error::Error) -> Option<io::ErrorKind> {
    if error.library_code() != LIBRARY_SYSTEM {
        return None;
    }
    // The code is the system's number with a flag above it; `reason_code` does not return it.
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

/// Returns an error and all its causes, the lowest one last.
///
/// The `source` of an `io::Error` that wraps another error is that error's own source, so the wrapped error is added.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use hyper::{Request, client::conn::http1};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Returns the HTTP library's error for a request whose connection the peer closes after these bytes.
    async fn error_after(answer: &[u8]) -> hyper::Error {
        let (client, mut server) = duplex(1024);
        let (mut sender, connection) = http1::handshake::<_, String>(TokioIo::new(client)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = sender.send_request(Request::new(String::new()));
        let peer = async {
            server.read_u8().await.unwrap();
            server.write_all(answer).await.unwrap();
            drop(server);
        };
        let (error, ()) = tokio::join!(request, peer);
        drop(connection.await.unwrap());
        error.unwrap_err()
    }

    #[tokio::test]
    async fn a_closed_connection_is_recognised_by_the_texts_of_the_http_library() {
        let incomplete = error_after(b"").await;
        assert!(
            incomplete.is_incomplete_message() && is_closed(&incomplete),
            "{incomplete}"
        );
        let incomplete = error_after(b"HTTP/1.1 200 OK\r\n").await;
        assert!(
            incomplete.is_incomplete_message() && is_closed(&incomplete),
            "{incomplete}"
        );

        let (client, server) = duplex(1024);
        let (mut sender, connection) = http1::handshake::<_, String>(TokioIo::new(client)).await.unwrap();
        drop((connection, server));
        let canceled = sender
            .send_request(Request::new(String::new()))
            .await
            .unwrap_err();
        assert!(canceled.is_canceled() && is_closed(&canceled), "{canceled}");
        let closed = sender.ready().await.unwrap_err();
        assert!(closed.is_closed() && is_closed(&closed), "{closed}");
    }

    #[tokio::test]
    async fn an_answer_that_is_no_http_is_not_a_closed_connection() {
        let malformed = error_after(b"220 mail.example ESMTP\r\n\r\n").await;
        assert!(malformed.is_parse() && !is_closed(&malformed), "{malformed}");
    }
}
