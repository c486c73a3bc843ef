//! The only place where a [`Situation`] becomes a gRPC code.
//!
//! What orchestrators do with a code decides the choice: Mesos retries only `UNAVAILABLE` and `DEADLINE_EXCEEDED`;
//! Kubernetes treats every code but `CANCELLED`, `DEADLINE_EXCEEDED`, `UNAVAILABLE`, `RESOURCE_EXHAUSTED` and
//! `ABORTED` as the end of the operation, so nothing of it may remain after such a code.

use std::borrow::Cow;

use tonic::{Code, Response, Status};

use crate::error::{Error, Result, Situation};

/// Returns the code of `situation` on the wire.
pub(crate) fn code(situation: Situation) -> Code {
    match situation {
        Situation::InvalidArgument => Code::InvalidArgument,
        Situation::UnknownVolume | Situation::UnknownNode | Situation::NotMountedThere => Code::NotFound,
        Situation::Incompatible => Code::AlreadyExists,
        Situation::UnsupportedByNode
        | Situation::AmbiguousName
        | Situation::HeldElsewhere
        | Situation::InUse
        | Situation::NotStaged
        | Situation::ForeignMount
        | Situation::NotShared
        | Situation::SingleWriter
        | Situation::MountBusy => Code::FailedPrecondition,
        Situation::FlockerUnavailable
        | Situation::NodeNotReporting
        | Situation::Busy
        | Situation::NotTheNodePlugin
        | Situation::LocalResource => Code::Unavailable,
        Situation::StillConverging => Code::DeadlineExceeded,
        Situation::Cancelled => Code::Cancelled,
        Situation::PoolFull => Code::ResourceExhausted,
        Situation::ImpossibleSize => Code::OutOfRange,
        Situation::BadToken => Code::Aborted,
        Situation::Unimplemented => Code::Unimplemented,
        Situation::Internal => Code::Internal,
    }
}

/// The longest message on the wire, in bytes. Clients refuse headers of more than 8 KiB and then report another error
/// than the plugin's; percent-encoding makes a message up to three times as long.
const LONGEST_MESSAGE: usize = 2048;

/// The longest word of a message that is not shortened, in bytes: a path, an id, a name.
const LONGEST_WORD: usize = 256;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Status::new(code(error.situation()), shortened(&error.chain()))
    }
}

/// Shortens long words of a message, and then the message itself, in the middle: what was being done stands at the start,
/// and the reason at the end.
fn shortened(message: &str) -> String {
    let words = message.split_inclusive(char::is_whitespace);
    let short: String = words.map(|word| without_middle(word, LONGEST_WORD)).collect();
    without_middle(&short, LONGEST_MESSAGE).into_owned()
}

/// Stands where the middle of a text is left out.
const LEFT_OUT: &str = "[…]";

/// Returns a text of at most this length, whose end is longer than its start where the middle is left out.
fn without_middle(text: &str, longest: usize) -> Cow<'_, str> {
    if text.len() <= longest {
        return Cow::Borrowed(text);
    }
    let kept = longest.saturating_sub(LEFT_OUT.len());
    let (start, end) = (kept / 3, text.len() - (kept - kept / 3));
    let start = (0..=start).rev().find_map(|start| text.get(..start));
    let end = (end..=text.len()).find_map(|end| text.get(end..));
    Cow::Owned(format!(
        "{}{LEFT_OUT}{}",
        start.unwrap_or_default(),
        end.unwrap_or_default()
    ))
}

/// Makes the answer of an RPC.
pub(crate) fn answer<T>(result: Result<T>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(Status::from)
}

/// Answers an RPC that Flocker has no function for.
pub(crate) fn unimplemented<T>(what: &str) -> Result<Response<T>, Status> {
    answer(Err(Error::new(
        Situation::Unimplemented,
        format!("{what} is not offered: Flocker has no such thing"),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_never_exceeds_what_clients_accept() {
        let error = Error::new(Situation::UnknownVolume, "ä".repeat(10_000));
        assert!(Status::from(error).message().len() <= LONGEST_MESSAGE);
    }

    #[test]
    fn the_reason_is_never_cut_off() {
        let (path, spaced) = ("/a".repeat(2000), "/a b".repeat(1000));
        for long in [&path, &spaced, &"ä".repeat(4000)] {
            let text = format!("staging volume v at {long}: cannot mount {long}");
            let error =
                Error::new(Situation::Internal, text).with_source(std::io::Error::other("disk on fire"));
            let status = Status::from(error);
            let message = status.message();
            assert!(message.starts_with("staging volume v at "), "{message}");
            assert!(message.ends_with(": disk on fire"), "{message}");
            assert!(
                message.contains("[…]") && message.len() <= LONGEST_MESSAGE,
                "{message}"
            );
        }
        let whole = format!("cannot mount {}: no", "/a".repeat(100));
        assert_eq!(shortened(&whole), whole);
    }

    #[test]
    fn the_codes_that_the_kubelet_treats_as_the_end_are_final() {
        for situation in Situation::ALL {
            let goes_on = matches!(
                code(situation),
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Unavailable
                    | Code::ResourceExhausted
                    | Code::Aborted
            );
            assert_eq!(situation.is_final(), !goes_on, "{situation:?}");
        }
    }
}
