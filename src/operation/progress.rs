//! What a running operation waits for.

use std::fmt;
use std::path::PathBuf;

use tokio::time::Instant;
use uuid::Uuid;

use crate::error::Situation;

/// The step an operation waits for, in the order an attachment passes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The operation has just begun.
    Starting,
    /// Another operation on the same volume holds the volume's lock.
    OtherOperation,
    /// Flocker answers.
    FlockerAnswering,
    /// Flocker lists the node.
    NodeReporting {
        /// The node that is not listed.
        node: Uuid,
    },
    /// Another node gives up its lease on the dataset.
    LeaseOfNode {
        /// The node that has it.
        node: Uuid,
    },
    /// Flocker's configuration says what was asked for.
    Configured,
    /// The dataset's backing volume exists.
    BackingVolume {
        /// The node that makes it.
        node: Uuid,
    },
    /// Another node has let go of the dataset.
    ReleasedByOtherNode {
        /// The node that has to let go.
        node: Uuid,
    },
    /// Flocker's agent has mounted the dataset on this node.
    MountedHere {
        /// Where the mount is expected.
        path: PathBuf,
    },
    /// Flocker has destroyed the dataset.
    Destroyed {
        /// The node that destroys it.
        node: Uuid,
    },
    /// Somebody asks for the result, without whom nothing is mounted.
    Caller,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => write!(f, "starting"),
            Self::OtherOperation => write!(f, "waiting for another operation on the volume to end"),
            Self::FlockerAnswering => write!(f, "waiting for an answer of Flocker"),
            Self::NodeReporting { node } => {
                write!(
                    f,
                    "waiting for \"node reporting\": Flocker does not list node {node}"
                )
            }
            Self::LeaseOfNode { node } => {
                write!(
                    f,
                    "waiting for \"lease of node {node}\": that node has not given up the volume yet"
                )
            }
            Self::Configured => write!(
                f,
                "waiting for \"configured\": Flocker has not stored the request yet"
            ),
            Self::BackingVolume { node } => {
                write!(
                    f,
                    "waiting for \"backing volume\": node {node} has not made it yet"
                )
            }
            Self::ReleasedByOtherNode { node } => {
                write!(
                    f,
                    "waiting for \"released by the other node\": node {node} still has the dataset"
                )
            }
            Self::MountedHere { path } => {
                write!(
                    f,
                    "waiting for \"mounted here\": nothing is mounted at {} yet",
                    path.display()
                )
            }
            Self::Destroyed { node } => {
                write!(
                    f,
                    "waiting for \"destroyed\": node {node} has not destroyed the dataset yet"
                )
            }
            Self::Caller => write!(f, "waiting for a caller before anything is mounted"),
        }
    }
}

/// How far an operation has come.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What it waits for.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
    /// The dataset it works on, once known.
    pub dataset: Option<Uuid>,
}

impl Progress {
    /// Enters `phase`; returns whether that is another one than before.
    pub(super) fn enter(&mut self, phase: Phase) -> bool {
        let another = self.phase != phase;
        if another {
            self.phase = phase;
            self.since = Instant::now();
        }
        another
    }

    /// Returns what an operation that has not ended in time is an example of.
    pub(super) fn situation_at_deadline(&self) -> Situation {
        match self.phase {
            Phase::FlockerAnswering => Situation::FlockerUnavailable,
            Phase::NodeReporting { .. } => Situation::NodeNotReporting,
            Phase::OtherOperation => Situation::Busy,
            Phase::Starting
            | Phase::LeaseOfNode { .. }
            | Phase::Configured
            | Phase::BackingVolume { .. }
            | Phase::ReleasedByOtherNode { .. }
            | Phase::MountedHere { .. }
            | Phase::Destroyed { .. }
            | Phase::Caller => Situation::StillConverging,
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            phase: Phase::Starting,
            since: Instant::now(),
            dataset: None,
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} for {:.1} s",
            self.phase,
            self.since.elapsed().as_secs_f64()
        )?;
        match self.dataset {
            Some(dataset) => write!(f, " (dataset {dataset})"),
            None => Ok(()),
        }
    }
}
