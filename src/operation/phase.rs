//! The steps that operations wait for.

use std::fmt;
use std::path::PathBuf;

use uuid::Uuid;

use crate::telemetry::log_names::{NamedNode, listed_nodes};

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
    pub(super) fn interrupts(&self) -> bool {
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
    pub(super) fn hint(&self) -> Option<&'static str> {
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
                let listed = listed_nodes();
                write!(
                    f,
                    "waiting for \"node reporting\": Flocker, which lists {listed}, does not list node {}",
                    NamedNode(*node)
                )
            }
            Self::LeaseOfNode { node } => {
                write!(
                    f,
                    "waiting for \"lease of node {node}\": node {} has not released the volume yet",
                    NamedNode(*node)
                )
            }
            Self::Configured { what, node } => {
                write!(
                    f,
                    "waiting for \"configured\": Flocker has not stored {what} node {} yet",
                    NamedNode(*node)
                )
            }
            Self::BackingVolume { node } => {
                write!(
                    f,
                    "waiting for \"backing volume\": node {} has not created it yet",
                    NamedNode(*node)
                )
            }
            Self::ReleasedByOtherNode { node, mounted: false } => {
                write!(
                    f,
                    "waiting for \"released by the other node\": node {} still has the dataset",
                    NamedNode(*node)
                )
            }
            Self::ReleasedByOtherNode { node, mounted: true } => {
                write!(
                    f,
                    "waiting for \"released by the other node\": unless the agent of node {} is about to unmount the \
                     dataset, the volume is still staged there; it has been mounted there",
                    NamedNode(*node)
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
                    "waiting for \"destroyed\": node {} has not destroyed the dataset yet",
                    NamedNode(*node)
                )
            }
            Self::Caller => write!(f, "waiting for a caller before anything is mounted"),
        }
    }
}
