//! The one error type of the plugin's core.
//!
//! An [`Error`] states *in which situation* an operation ended, and its message says what was being done, what was
//! expected, what was seen and what to do. It is independent of gRPC: only [`crate::csi::status`] chooses the code
//! of a situation on the wire. Every caller that joined an operation gets a clone of its error.

use std::fmt;
use std::io;
use std::sync::Arc;

use flocker_client::RequestOutcome;
use rustix::io::Errno;
use tokio::task::JoinError;
use uuid::Uuid;

/// Errors of the operating system that report a condition of the machine: too many open files, no memory or threads, and a
/// disk that is full, read-only or failing.
const LACKING: [Errno; 9] = [
    Errno::MFILE,
    Errno::NFILE,
    Errno::AGAIN,
    Errno::NOMEM,
    Errno::NOBUFS,
    Errno::NOSPC,
    Errno::DQUOT,
    Errno::ROFS,
    Errno::IO,
];

/// Names the reason why an operation failed.
///
/// A situation is a fact about the cluster or the request, not a code. [`crate::csi::status`] maps each one to
/// exactly one gRPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Situation {
    /// A field is missing, malformed, or asks for a property that no volume of this plugin can have.
    InvalidArgument,
    /// A node was asked for an access type, mode, file system or mount flag that it does not support.
    UnsupportedByNode,
    /// No live volume has this id.
    UnknownVolume,
    /// Several live datasets have the name that was given as the volume id.
    AmbiguousName,
    /// No node of the cluster has this id.
    UnknownNode,
    /// The volume is not mounted at the path in the request.
    NotMountedThere,
    /// A volume of this name, or a mount at this path, exists with other properties.
    Incompatible,
    /// Another node holds the volume's lease.
    HeldElsewhere,
    /// The volume is leased, so it must not be deleted.
    InUse,
    /// The volume is not staged on this node, or the node has lost the right to use it.
    NotStaged,
    /// A mount that the plugin did not make is at a path from the request, or in its way.
    ForeignMount,
    /// The orchestrator's containers would not see a mount at the target.
    NotShared,
    /// A second target was requested although the access mode allows only one.
    SingleWriter,
    /// Another process still uses the mount that must be removed.
    MountBusy,
    /// Flocker cannot be reached, refuses the plugin's certificate, or fails.
    FlockerUnavailable,
    /// Flocker does not list the node that has to do the work.
    NodeNotReporting,
    /// Another operation on the same volume or path is still running.
    Busy,
    /// This process cannot serve the volumes of the node: another one holds its state or device directory, or that cannot
    /// be used.
    NotTheNodePlugin,
    /// The operation continues, but does not finish before this caller's deadline.
    StillConverging,
    /// The inverse call ended this operation, or no caller has asked about it for a long time.
    Cancelled,
    /// The pool does not have enough free space for the volume.
    PoolFull,
    /// No volume can have a size in the requested range.
    ImpossibleSize,
    /// The plugin did not issue this page token.
    BadToken,
    /// The request is valid, but the plugin does not offer it.
    Unimplemented,
    /// This machine lacks what a step needs: memory, descriptors, or a file system that can be read and written and has
    /// room.
    LocalResource,
    /// The operating system, or Flocker, refused a step that should succeed.
    Internal,
}

impl Situation {
    /// Returns whether an orchestrator treats an error of this situation as the end of the operation.
    ///
    /// After a final error the kubelet need not call the inverse RPC, so nothing of the operation may remain.
    pub fn is_final(self) -> bool {
        match self {
            Self::FlockerUnavailable
            | Self::NodeNotReporting
            | Self::Busy
            | Self::NotTheNodePlugin
            | Self::StillConverging
            | Self::Cancelled
            | Self::PoolFull
            | Self::BadToken
            | Self::LocalResource => false,
            Self::InvalidArgument
            | Self::UnsupportedByNode
            | Self::UnknownVolume
            | Self::AmbiguousName
            | Self::UnknownNode
            | Self::NotMountedThere
            | Self::Incompatible
            | Self::HeldElsewhere
            | Self::InUse
            | Self::NotStaged
            | Self::ForeignMount
            | Self::NotShared
            | Self::SingleWriter
            | Self::MountBusy
            | Self::ImpossibleSize
            | Self::Unimplemented
            | Self::Internal => true,
        }
    }

    /// Every situation.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 26] = [
        Self::InvalidArgument,
        Self::UnsupportedByNode,
        Self::UnknownVolume,
        Self::AmbiguousName,
        Self::UnknownNode,
        Self::NotMountedThere,
        Self::Incompatible,
        Self::HeldElsewhere,
        Self::InUse,
        Self::NotStaged,
        Self::ForeignMount,
        Self::NotShared,
        Self::SingleWriter,
        Self::MountBusy,
        Self::FlockerUnavailable,
        Self::NodeNotReporting,
        Self::Busy,
        Self::NotTheNodePlugin,
        Self::StillConverging,
        Self::Cancelled,
        Self::PoolFull,
        Self::ImpossibleSize,
        Self::BadToken,
        Self::Unimplemented,
        Self::LocalResource,
        Self::Internal,
    ];
}

/// An operation's failure: a [`Situation`], a message for people, and the cause.
#[derive(Clone, Debug)]
pub struct Error {
    situation: Situation,
    message: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    is_unclear: bool,
}

/// The result of an operation of the plugin.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error of `situation` with `message` for people.
    pub fn new(situation: Situation, message: impl Into<String>) -> Self {
        Self {
            situation,
            message: message.into(),
            source: None,
            is_unclear: false,
        }
    }

    /// Adds the failure that caused this one; [`Self::chain`] puts it after a colon.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Makes an error of `situation` whose message is that of another error with its causes.
    ///
    /// [`Situation::Internal`] becomes [`Situation::LocalResource`] where that is the cause.
    pub fn of(situation: Situation, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(of_local_step(situation, error), chain(error))
    }

    /// Puts what was being done before the message.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// Puts what was being done before the message, if the message only names the step that failed.
    #[must_use]
    pub fn failure_context(self, doing: impl fmt::Display) -> Self {
        match self.situation {
            Situation::FlockerUnavailable | Situation::LocalResource | Situation::Internal => {
                self.context(doing)
            }
            _ => self,
        }
    }

    /// Makes the error of a local step that the operating system refused: [`Situation::LocalResource`] where it lacks
    /// something that may be available later, else [`Situation::Internal`].
    pub fn internal(
        doing: impl fmt::Display,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let situation = of_local_step(Situation::Internal, &source);
        Self::new(situation, format!("cannot {doing}")).with_source(source)
    }

    /// Makes the error of a request to Flocker that failed while `doing`.
    ///
    /// Only a refusal by Flocker itself is final. Everything else may pass, the answers of a proxy included, so it is
    /// [`Situation::FlockerUnavailable`].
    pub fn flocker(doing: impl fmt::Display, source: impl Into<Arc<flocker_client::Error>>) -> Self {
        let source = source.into();
        let outcome = source.outcome();
        let situation = match outcome {
            RequestOutcome::Refused => Situation::Internal,
            RequestOutcome::WithoutEffect | RequestOutcome::Unclear => Situation::FlockerUnavailable,
        };
        Self {
            is_unclear: outcome == RequestOutcome::Unclear,
            ..Self::new(situation, format!("cannot {doing}")).with_source(source)
        }
    }

    /// Returns whether Flocker may have carried out the write that failed, or may still do so.
    pub fn is_unclear(&self) -> bool {
        self.is_unclear
    }

    /// Makes the error of work that ended in a panic, which is logged where it happens.
    pub fn panicked(doing: impl fmt::Display) -> Self {
        let text = format!("{doing}: a bug in flocker-csi ended this; see the panic in its log");
        Self::new(Situation::Internal, text)
    }

    /// Makes the error of work that a stop of the plugin ended: another call repeats it.
    pub fn stopping(doing: impl fmt::Display) -> Self {
        let text = format!("{doing}: the plugin is stopping; try again when it runs");
        Self::new(Situation::Busy, text)
    }

    /// Makes the error of a task that ended without a result: it panicked, or a stop of the plugin cancelled it.
    pub fn task(doing: impl fmt::Display, ended: &JoinError) -> Self {
        if ended.is_panic() {
            Self::panicked(doing)
        } else {
            Self::stopping(doing)
        }
    }

    /// Makes the error of a dataset that does not exist, or no longer.
    pub fn unknown_volume(dataset: Uuid) -> Self {
        let text = format!("volume {dataset} does not exist: Flocker has no live dataset of that id");
        Self::new(Situation::UnknownVolume, text)
    }

    /// Returns the situation.
    pub fn situation(&self) -> Situation {
        self.situation
    }

    /// Returns the message and those of all causes, joined by colons.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// Returns the situation of a local step that failed with `error`, in place of the one that it has otherwise.
fn of_local_step(otherwise: Situation, error: &(dyn std::error::Error + 'static)) -> Situation {
    if otherwise != Situation::Internal {
        return otherwise;
    }
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    if causes.any(lacks_resource) {
        Situation::LocalResource
    } else {
        otherwise
    }
}

/// Returns whether an error of the operating system reports a condition of the machine, rather than a wrong step: it
/// ends without a change of the request.
fn lacks_resource(error: &(dyn std::error::Error + 'static)) -> bool {
    let errno = error
        .downcast_ref::<io::Error>()
        .and_then(Errno::from_io_error)
        .or_else(|| error.downcast_ref::<Errno>().copied());
    errno.is_some_and(|errno| LACKING.contains(&errno))
}

/// Returns the message of an error and those of all its causes, joined by colons.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source.as_ref() as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_contains_the_message_and_every_cause_once() {
        let error = Error::internal("read /x", std::io::Error::other("disk on fire"))
            .context("staging volume v on node n");
        assert_eq!(
            error.chain(),
            "staging volume v on node n: cannot read /x: disk on fire"
        );
        assert_eq!(error.situation(), Situation::Internal);
    }

    #[test]
    fn what_the_machine_lacks_is_worth_a_retry_and_a_wrong_step_is_not() {
        for errno in LACKING {
            let open = || io::Error::from_raw_os_error(errno.raw_os_error());
            for error in [
                Error::internal("write the record", open()),
                Error::internal("write the record", errno),
                Error::of(Situation::Internal, &Error::internal("write the record", open())),
            ] {
                assert_eq!(error.situation(), Situation::LocalResource, "{}", error.chain());
                assert!(!error.situation().is_final());
            }
            // Whatever else is known about a failure counts more.
            let foreign = Error::of(Situation::ForeignMount, &open());
            assert_eq!(foreign.situation(), Situation::ForeignMount);
        }
        for errno in [Errno::INVAL, Errno::PERM, Errno::NOTEMPTY, Errno::LOOP] {
            let error = Error::internal("mount", errno);
            assert_eq!(error.situation(), Situation::Internal, "{}", error.chain());
        }
    }

    #[tokio::test]
    async fn a_task_that_a_stop_ended_is_to_be_repeated_and_one_that_panicked_is_not() {
        let cancelled = tokio::spawn(std::future::pending::<()>());
        cancelled.abort();
        let stopped = Error::task("reading", &cancelled.await.unwrap_err());
        assert!(!stopped.situation().is_final(), "{}", stopped.chain());
        let panicked = tokio::spawn(async { panic!("bug") }).await.unwrap_err();
        assert_eq!(Error::task("reading", &panicked).situation(), Situation::Internal);
    }
}
