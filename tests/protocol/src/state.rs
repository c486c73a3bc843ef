//! What exists: the control service, the storage, and on each node an agent, a kernel and a plugin.

use serde::{Deserialize, Serialize};

pub use crate::course::At as Node;

impl Node {
    /// Both nodes.
    pub const BOTH: [Node; 2] = [Node::A, Node::B];

    /// Returns the other node.
    #[must_use]
    pub fn other(self) -> Node {
        match self {
            Node::A => Node::B,
            Node::B => Node::A,
        }
    }
}

/// Everything, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The configured primary.
    pub primary: Node,
    /// The holder of the lease.
    pub lease: Option<Node>,
    /// Where the storage is attached, as its back end has it written down.
    pub attached: Option<Node>,
    /// The nodes; [`State::at`] finds one.
    pub nodes: [OnNode; 2],
    /// A request that its sender no longer waits for and that Flocker has not carried out yet.
    pub late: Option<Request>,
    /// What may still happen.
    pub left: Budget,
    /// Whether the lease was acquired for a node that may no longer want it, by a late request or by putting it back (a ghost:
    /// no process reads it).
    pub stray_lease: bool,
    /// Whether a publication has shown another file system than the one that Flocker has mounted.
    pub published_another: bool,
}

/// How often something may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Budget {
    /// Deaths of processes and machines.
    pub kills: u8,
    /// Replies that are lost, or requests that are carried out late.
    pub losses: u8,
    /// Operations of the orchestrator beyond the first placement.
    pub operations: u8,
}

/// A write at Flocker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// POST lease.
    Lease(Node),
    /// POST primary.
    Move(Node),
    /// DELETE lease, which has no condition.
    Release,
}

/// One node, and what the orchestrator wants of it.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OnNode {
    /// Whether the agent runs.
    pub agent: bool,
    /// What the agent received last.
    pub received: Option<Received>,
    /// Whether Flocker lists the node.
    pub listed: bool,
    /// Whether Flocker's mount exists.
    pub flockers_mount: bool,
    /// The plugin's mount.
    pub alias: Alias,
    /// Whether the file system of the plugin's mount is shut down.
    pub stopped: bool,
    /// Whether that of Flocker's mount is, which was the same one, after the plugin has unmounted its own.
    pub flockers_is_stopped: bool,
    /// Whether the plugin runs.
    pub plugin: bool,
    /// Whether it holds Flocker's mount.
    pub pin: bool,
    /// Its record of the volume, on disk.
    pub record: Record,
    /// Whether Flocker's mount is still the one that the record names.
    pub same_mount: bool,
    /// Whether it has been dead since the volume was staged, and has not read since then that another node may have it: by the
    /// lease, by the configured primary where no node has the lease, or by Flocker's mount (a ghost: no process reads it).
    pub unseen: bool,
    /// Whether its last read showed the lease with another node.
    pub held_elsewhere: bool,
    /// What its RPC about the volume does now.
    pub rpc: NodeRpc,
    /// What the controller does for this node now.
    pub controller: Controller,
    /// Whether the orchestrator considers the volume attached to this node.
    pub attachment: Attachment,
    /// What the orchestrator runs on this node.
    pub task: Task,
    /// How the node's lease was taken away while the volume was mounted here for the plugin (a ghost, as the next).
    pub robbed: Robbed,
    /// Whether the agent unmounted it meanwhile because it had not received yet that the lease is this node's.
    pub outrun: bool,
}

/// What an agent makes of configuration and leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Received {
    /// Whether this node is the primary.
    pub is_primary: bool,
    /// Whether this node has the lease.
    pub has_lease: bool,
}

/// How a lease was taken from a node that has the volume staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Robbed {
    /// It was not.
    No,
    /// The orchestrator detached the volume from the node, or another node took it over.
    OnPurpose,
    /// A request hit it that was carried out late, or whose sender got no reply.
    Unclear,
    /// A DELETE for another node hit it, which had its lease when that was read.
    ByRace,
    /// A DELETE for another node hit it, which did not have the lease when that was read.
    ByMistake,
}

/// The plugin's mount of the volume's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alias {
    /// It does not exist.
    None,
    /// It is of the device that is attached here now.
    Current,
    /// It is of a device that the agent has detached: it lives on until its last unmount.
    Detached,
}

/// The staging record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// None.
    None,
    /// Staging has begun.
    Staging,
    /// The volume is staged.
    Staged,
    /// The lease is still to be released.
    ReleasePending,
    /// It was staged, or being staged, in another boot.
    OfAnotherBoot,
}

/// A step of attaching, by the controller or, where nodes attach, by `NodeStage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attach {
    /// Leases and primary were read, and the lease is free or this node's.
    Read {
        /// Whether the primary was another node.
        moves: bool,
    },
    /// The lease was read as that of a node that is gone.
    TakingOver {
        /// Whether the primary was another node.
        moves: bool,
    },
    /// The lease is acquired.
    Leased {
        /// Whether the primary was another node.
        moves: bool,
    },
    /// Waits until no other node has the volume.
    Configured,
}

/// What the controller does for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Controller {
    /// Nothing.
    Idle,
    /// `ControllerPublishVolume`.
    Attach(Attach),
    /// `ControllerUnpublishVolume` has read the lease, and sends the DELETE next.
    Releasing {
        /// Whether the lease was this node's.
        own: bool,
    },
    /// Its DELETE hit another node's lease.
    PuttingBack,
}

/// What the plugin of a node does in an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeRpc {
    /// None runs.
    Idle,
    /// `NodeStage` attaches, having written its record.
    Attach(Option<Attach>),
    /// `NodeStage` waits for Flocker's mount.
    Waiting,
    /// It has pinned Flocker's mount.
    Pinned,
    /// It has read that lease and primary are this node's.
    Checked,
    /// `NodeUnstage`, or the undoing of a staging, has unmounted.
    Unmounted,
    /// It has read this node's lease, and sends the DELETE next.
    Releasing,
    /// Its DELETE hit another node's lease.
    PuttingBack,
}

/// What the orchestrator considers attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attachment {
    /// The volume is not attached to the node.
    Detached,
    /// `ControllerPublishVolume` is called until it succeeds.
    Attaching,
    /// It has succeeded.
    Attached,
    /// `ControllerUnpublishVolume` is called until it succeeds.
    Detaching,
}

/// What the orchestrator runs on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Nothing.
    None,
    /// `NodeStage`, then `NodePublish` are called until they succeed.
    Starting,
    /// The task writes to the published volume.
    Running,
    /// The task has ended; `NodeUnpublish` is called until it succeeds.
    Ended {
        /// Whether `NodeUnstage` follows.
        unstages: bool,
    },
    /// `NodeUnstage` is called until it succeeds.
    Unstaging,
}

impl State {
    /// Returns a node.
    #[must_use]
    pub fn at(&self, node: Node) -> &OnNode {
        &self.nodes[node as usize]
    }

    /// Returns a node, to change it.
    pub fn at_mut(&mut self, node: Node) -> &mut OnNode {
        &mut self.nodes[node as usize]
    }

    /// Returns what an agent receives now.
    #[must_use]
    pub fn sent_to(&self, node: Node) -> Received {
        Received {
            is_primary: self.primary == node,
            has_lease: self.lease == Some(node),
        }
    }

    /// Whether lease and primary are the node's: `may_use` in `src/node/stage.rs`, `belongs_to` in
    /// `src/flocker/attach.rs`.
    #[must_use]
    pub fn belongs_to(&self, node: Node) -> bool {
        self.lease == Some(node) && self.primary == node
    }
}

impl OnNode {
    /// Whether the plugin holds Flocker's mount, and it is in place.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pin && self.flockers_mount
    }

    /// Unmounts the plugin's mount.
    pub fn unmounts(&mut self) {
        self.flockers_is_stopped |= self.stopped && self.alias == Alias::Current && self.flockers_mount;
        self.alias = Alias::None;
        self.stopped = false;
    }

    /// Whether Flocker has mounted the volume from another device than the plugin.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        self.alias == Alias::Detached && self.flockers_mount
    }

    /// Whether the volume is published.
    #[must_use]
    pub fn published(&self) -> bool {
        matches!(self.task, Task::Running | Task::Ended { .. })
    }

    /// Whether a task can write: it runs, and the file system that it sees is not shut down.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.task == Task::Running && self.alias != Alias::None && !self.stopped
    }

    /// Whether the device that the agent has detached is still mounted for writing.
    #[must_use]
    pub fn detached_is_live(&self) -> bool {
        self.alias == Alias::Detached && !self.stopped
    }

    /// Whether the device that is attached now is mounted for writing, by Flocker or the plugin.
    #[must_use]
    pub fn current_is_live(&self) -> bool {
        match self.alias {
            Alias::Current => !self.stopped,
            Alias::None | Alias::Detached => self.flockers_mount,
        }
    }
}
