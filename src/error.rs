//! The one error type of the plugin's core.
//!
//! An [`Error`] says *in which situation* an operation ended and tells a person what was being done, what was
//! expected, what was seen and what to do. It knows nothing of gRPC: [`crate::csi::status`] alone chooses the code
//! that a situation becomes on the wire. Errors are cloned to every caller that joined an operation.

use std::fmt;
use std::sync::Arc;

use tokio::task::JoinError;
use uuid::Uuid;

/// Names why an operation could not be done.
///
/// A situation is a fact about the cluster or the request, not a code. Each one is turned into exactly one gRPC
/// code by [`crate::csi::status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Situation {
    /// A field is missing, malformed, or asks for something no volume of ours can be.
    InvalidArgument,
    /// A node was asked for an access type, mode, file system or mount flag that it does not support.
    UnsupportedByNode,
    /// No live volume has this id.
    UnknownVolume,
    /// Several live datasets carry the name that the volume id is.
    AmbiguousName,
    /// No node of the cluster has this id.
    UnknownNode,
    /// The volume is not mounted at the path that was asked about.
    NotMountedThere,
    /// A volume of this name, or a mount at this path, exists with other properties.
    Incompatible,
    /// Another node holds the volume's lease.
    HeldElsewhere,
    /// The volume is leased and so may not be deleted.
    InUse,
    /// The node holds no staged copy of the volume, or no longer the right to use it.
    NotStaged,
    /// Something that is not ours is mounted at, or in the way of, a path we were given.
    ForeignMount,
    /// A mount at the target would be invisible to the orchestrator's containers.
    NotShared,
    /// A second target was asked for although the access mode allows one.
    SingleWriter,
    /// Somebody still uses the mount that is to go.
    MountBusy,
    /// Flocker cannot be reached, refuses our certificate, or fails.
    FlockerUnavailable,
    /// Flocker does not list the node that has to do the work.
    NodeNotReporting,
    /// Another operation on the same volume or path is still running.
    Busy,
    /// Another process on this node owns the state directory.
    NotTheNodePlugin,
    /// The work goes on, but not fast enough for this caller.
    StillConverging,
    /// The opposite call ended this operation, or nobody has asked about it for long.
    Cancelled,
    /// The pool has no room left for the volume.
    PoolFull,
    /// No volume can ever have a size in the range asked for.
    ImpossibleSize,
    /// A page token is not one of ours.
    BadToken,
    /// The request is understood, but not offered by this plugin.
    Unimplemented,
    /// The operating system, or Flocker, refused a step that should have worked.
    Internal,
}

impl Situation {
    /// Whether an orchestrator takes an error of this situation as the end of the operation.
    ///
    /// After a final answer kubelet need never call the opposite RPC, so nothing of the operation may be left.
    pub fn is_final(self) -> bool {
        match self {
            Self::FlockerUnavailable
            | Self::NodeNotReporting
            | Self::Busy
            | Self::NotTheNodePlugin
            | Self::StillConverging
            | Self::Cancelled
            | Self::PoolFull
            | Self::BadToken => false,
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

    /// Every situation there is.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 25] = [
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
        Self::Internal,
    ];
}

/// An operation's failure: a [`Situation`], a sentence for people, and what caused it.
#[derive(Clone, Debug)]
pub struct Error {
    situation: Situation,
    message: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The result of the plugin's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error of `situation` that tells `message` to a person.
    pub fn new(situation: Situation, message: impl Into<String>) -> Self {
        Self {
            situation,
            message: message.into(),
            source: None,
        }
    }

    /// Adds the failure that caused this one; it is told after a colon.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Makes an error that tells another one, with its causes, in its own words.
    pub fn of(situation: Situation, error: &dyn std::error::Error) -> Self {
        Self::new(situation, chain(error))
    }

    /// Puts what was being done before the message.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// Says what was being done, where the message only tells which step failed.
    #[must_use]
    pub fn failure_context(self, doing: impl fmt::Display) -> Self {
        match self.situation {
            Situation::FlockerUnavailable | Situation::Internal => self.context(doing),
            _ => self,
        }
    }

    /// Makes the error of a local step that the operating system refused.
    pub fn internal(
        doing: impl fmt::Display,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::new(Situation::Internal, format!("cannot {doing}")).with_source(source)
    }

    /// Makes the error of a request to Flocker that failed while `doing`.
    ///
    /// A refusal by Flocker (4xx) is final; everything else may pass, so it is [`Situation::FlockerUnavailable`].
    pub fn flocker(doing: impl fmt::Display, source: impl Into<Arc<flocker_client::Error>>) -> Self {
        let source = source.into();
        let refused = source.status().is_some_and(|status| (400..500).contains(&status));
        let situation = if refused {
            Situation::Internal
        } else {
            Situation::FlockerUnavailable
        };
        Self::new(situation, format!("cannot {doing}")).with_source(source)
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

    /// Returns the message with everything that caused it, joined by colons.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// Returns what an error says and everything that caused it, joined by colons.
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
    fn the_chain_tells_the_message_and_every_cause_once() {
        let error = Error::internal("read /x", std::io::Error::other("disk on fire"))
            .context("staging volume v on node n");
        assert_eq!(
            error.chain(),
            "staging volume v on node n: cannot read /x: disk on fire"
        );
        assert_eq!(error.situation(), Situation::Internal);
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
