//! What a running operation waits for.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::elapsed::Elapsed;
use crate::error::Situation;
use crate::volume::VolumeLabels;

/// How long a phase takes at most on a healthy cluster.
const UNUSUAL: Duration = Duration::from_secs(20);

/// The step that an operation waits for, in the order in which an attachment passes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing yet: the operation has just started.
    Starting,
    /// The volume's lock, which another operation on the volume holds.
    OtherOperation,
    /// An answer from Flocker.
    FlockerAnswering,
    /// A file system answers that lies on the way to a path of the request.
    FileSystemAnswering {
        /// The path.
        path: PathBuf,
    },
    /// Flocker lists the node.
    NodeReporting {
        /// The node that is not listed.
        node: Uuid,
    },
    /// Another node releasing its lease on the dataset.
    LeaseOfNode {
        /// The node that holds it.
        node: Uuid,
    },
    /// Flocker storing what was requested.
    Configured {
        /// What Flocker is to store.
        what: Wanted,
        /// The node it is for.
        node: Uuid,
    },
    /// The dataset's backing volume being created.
    BackingVolume {
        /// The node that creates it.
        node: Uuid,
    },
    /// Another node detaching the dataset.
    ReleasedByOtherNode {
        /// The node that has to detach it.
        node: Uuid,
        /// Whether Flocker reports it as mounted there.
        mounted: bool,
    },
    /// A node detaching the dataset whose id in Flocker's answer cannot be read: it may be any.
    ReleasedByUnknownNode,
    /// Flocker's agent mounting the dataset on this node.
    MountedHere {
        /// This node.
        node: Uuid,
        /// Where the mount is expected.
        path: PathBuf,
    },
    /// A mount that Flocker reports, in a mount namespace that does not receive it.
    NotReceivedHere {
        /// This node.
        node: Uuid,
        /// Where Flocker reports it.
        path: PathBuf,
    },
    /// Flocker's agent finishing a new file system that it has mounted.
    FinishedHere {
        /// This node.
        node: Uuid,
        /// Where it is mounted.
        path: PathBuf,
    },
    /// Flocker destroying the dataset.
    Destroyed {
        /// The node that destroys it.
        node: Uuid,
    },
    /// A caller: without one, nothing is mounted.
    Caller,
}

/// What Flocker is requested to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A new dataset.
    Dataset,
    /// The lease on it.
    Lease,
    /// Its move.
    Move,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dataset => "the new dataset on",
            Self::Lease => "the lease for",
            Self::Move => "the move to",
        })
    }
}

impl Phase {
    /// Whether this only interrupts another phase: what that one waits for goes on.
    fn interrupts(&self) -> bool {
        matches!(
            self,
            Self::OtherOperation | Self::FlockerAnswering | Self::FileSystemAnswering { .. }
        )
    }
}

impl Phase {
    /// Returns the name of the phase in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::OtherOperation => "other_operation",
            Self::FlockerAnswering => "flocker_answering",
            Self::FileSystemAnswering { .. } => "file_system_answering",
            Self::NodeReporting { .. } => "node_reporting",
            Self::LeaseOfNode { .. } => "lease_of_node",
            Self::Configured { .. } => "configured",
            Self::BackingVolume { .. } => "backing_volume",
            Self::ReleasedByOtherNode { .. } => "released_by_other_node",
            Self::ReleasedByUnknownNode => "released_by_unknown_node",
            Self::MountedHere { .. } => "mounted_here",
            Self::NotReceivedHere { .. } => "not_received_here",
            Self::FinishedHere { .. } => "finished_here",
            Self::Destroyed { .. } => "destroyed",
            Self::Caller => "caller",
        }
    }

    /// Returns where the reason is to be found if the phase takes unusually long.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::BackingVolume { .. } | Self::MountedHere { .. } => Some(
                "the log of Flocker's agent on that node has the reason; storage that is missing or damaged is reported \
                 there and never made again",
            ),
            _ => None,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => write!(f, "starting"),
            Self::OtherOperation => write!(f, "waiting for another operation on the volume to end"),
            Self::FlockerAnswering => write!(f, "waiting for an answer from Flocker"),
            Self::FileSystemAnswering { path } => {
                write!(
                    f,
                    "waiting for a file system on the way to {}, which does not answer the calls before this one",
                    path.display()
                )
            }
            Self::NodeReporting { node } => {
                write!(
                    f,
                    "waiting for \"node reporting\": Flocker does not list node {node}"
                )
            }
            Self::LeaseOfNode { node } => {
                write!(
                    f,
                    "waiting for \"lease of node {node}\": that node has not released the volume yet"
                )
            }
            Self::Configured { what, node } => {
                write!(
                    f,
                    "waiting for \"configured\": Flocker has not stored {what} node {node} yet"
                )
            }
            Self::BackingVolume { node } => {
                write!(
                    f,
                    "waiting for \"backing volume\": node {node} has not created it yet"
                )
            }
            Self::ReleasedByOtherNode { node, mounted: false } => {
                write!(
                    f,
                    "waiting for \"released by the other node\": node {node} still has the dataset"
                )
            }
            Self::ReleasedByOtherNode { node, mounted: true } => {
                write!(
                    f,
                    "waiting for \"released by the other node\": unless the agent of node {node} is about to unmount the \
                     dataset, the volume is still staged there; it has been mounted there"
                )
            }
            Self::ReleasedByUnknownNode => {
                write!(
                    f,
                    "waiting for \"released by the other node\": Flocker reports the dataset as mounted on a node whose id \
                     cannot be read; see the plugin's log and GET /v1/state/datasets"
                )
            }
            Self::MountedHere { node, path } => {
                write!(
                    f,
                    "waiting for \"mounted here\": nothing is mounted at {} on node {node} yet",
                    path.display()
                )
            }
            Self::NotReceivedHere { node, path } => {
                write!(
                    f,
                    "waiting for \"mounted here\" on node {node}: Flocker says it is mounted at {}; this mount namespace does \
                     not receive it: mount --make-rshared / on the host, and start the plugin again",
                    path.display()
                )
            }
            Self::FinishedHere { node, path } => {
                write!(
                    f,
                    "waiting for \"mounted here\": on node {node} Flocker's agent has not finished the new file system at \
                     {} yet, or its device does not answer",
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

/// What a running operation waits for, and since when.
#[derive(Clone, Debug)]
pub(crate) struct OperationProgress {
    /// What it waits for.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
    /// When it last began to wait for that: later than `since` after an interruption.
    pub entered: Instant,
    /// What people call the volume that it works on, once known.
    pub labels: Option<Arc<VolumeLabels>>,
    /// The dataset that it works on, once known.
    pub dataset: Option<Uuid>,
    /// The phase that the present one interrupts, and when that phase began.
    interrupted: Option<(Phase, Instant)>,
}

impl OperationProgress {
    /// Enters `phase`; returns whether it differs from the one before.
    ///
    /// An interrupted phase keeps its start: a wait for a mount is one wait, although Flocker is read during it.
    pub(super) fn enter(&mut self, phase: Phase) -> bool {
        if self.phase == phase {
            return false;
        }
        let since = match &self.interrupted {
            Some((interrupted, since)) if *interrupted == phase => *since,
            Some(_) | None => Instant::now(),
        };
        let left = (
            std::mem::replace(&mut self.phase, phase),
            std::mem::replace(&mut self.since, since),
        );
        self.entered = Instant::now();
        if !self.phase.interrupts() {
            self.interrupted = None;
        } else if !left.0.interrupts() {
            self.interrupted = Some(left);
        }
        true
    }

    /// Returns the situation of a caller whose deadline comes in this phase.
    pub(super) fn situation_at_deadline(&self) -> Situation {
        match self.phase {
            Phase::FlockerAnswering => Situation::FlockerUnavailable,
            Phase::NodeReporting { .. } => Situation::NodeNotReporting,
            Phase::OtherOperation | Phase::FileSystemAnswering { .. } => Situation::Busy,
            Phase::Starting
            | Phase::LeaseOfNode { .. }
            | Phase::Configured { .. }
            | Phase::BackingVolume { .. }
            | Phase::ReleasedByOtherNode { .. }
            | Phase::ReleasedByUnknownNode
            | Phase::MountedHere { .. }
            | Phase::NotReceivedHere { .. }
            | Phase::FinishedHere { .. }
            | Phase::Destroyed { .. }
            | Phase::Caller => Situation::StillConverging,
        }
    }
}

impl Default for OperationProgress {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            phase: Phase::Starting,
            since: now,
            entered: now,
            labels: None,
            dataset: None,
            interrupted: None,
        }
    }
}

impl fmt::Display for OperationProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.phase, Elapsed(self.since.elapsed()))?;
        match &self.interrupted {
            Some((phase, since)) if *phase != Phase::Starting => {
                write!(
                    f,
                    ", and before that {phase}, which began {} ago",
                    Elapsed(since.elapsed())
                )?;
            }
            Some(_) | None => {}
        }
        if let Some(dataset) = self.dataset {
            write!(f, " (dataset {dataset})")?;
        }
        match self.phase.hint() {
            Some(hint) if self.since.elapsed() >= UNUSUAL => write!(f, "; {hint}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn mounted() -> Phase {
        Phase::MountedHere {
            node: Uuid::nil(),
            path: "/flocker/1".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupted_phase_keeps_its_start() {
        let mut progress = OperationProgress::default();
        progress.enter(mounted());
        advance(Duration::from_secs(20)).await;
        progress.enter(Phase::FlockerAnswering);
        advance(Duration::from_secs(2)).await;
        progress.enter(Phase::OtherOperation);
        advance(Duration::from_secs(3)).await;
        let text = progress.to_string();
        assert!(
            text.contains("another operation on the volume to end for 3.0 s")
                && text.contains("nothing is mounted at /flocker/1")
                && text.contains("began 25.0 s ago"),
            "{text}"
        );
        assert_eq!(progress.situation_at_deadline(), Situation::Busy);
        progress.enter(mounted());
        let text = progress.to_string();
        assert!(
            text.contains("yet for 25.0 s; the log of Flocker's agent"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_phase_that_was_left_for_another_one_starts_again() {
        let mut progress = OperationProgress::default();
        progress.enter(mounted());
        advance(Duration::from_secs(20)).await;
        progress.enter(Phase::NodeReporting { node: Uuid::nil() });
        progress.enter(Phase::FlockerAnswering);
        progress.enter(mounted());
        assert!(progress.to_string().ends_with("yet for 0.0 s"), "{progress}");
    }
}
