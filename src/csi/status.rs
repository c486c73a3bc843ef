//! The only place where a [`Situation`] becomes a gRPC code.
//!
//! What orchestrators do with a code decides the choice: Mesos retries only `UNAVAILABLE` and `DEADLINE_EXCEEDED`;
//! Kubernetes treats every code but `CANCELLED`, `DEADLINE_EXCEEDED`, `UNAVAILABLE`, `RESOURCE_EXHAUSTED` and
//! `ABORTED` as the end of the operation, so nothing of it may remain after such a code.

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

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut message = error.chain();
        if let Some(end) = (0..=LONGEST_MESSAGE)
            .rev()
            .find(|end| message.is_char_boundary(*end))
            && message.len() > LONGEST_MESSAGE
        {
            message.truncate(end);
            message.push('…');
        }
        Status::new(code(error.situation()), message)
    }
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
        assert!(Status::from(error).message().len() <= LONGEST_MESSAGE + '…'.len_utf8());
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
