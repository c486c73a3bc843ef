//! What is checked: the kind of cluster, the guards that are in, the bounds.

use serde::{Deserialize, Serialize};

use crate::state::{
    Alias, Attachment, Budget, Controller, Node, NodeRpc, OnNode, Received, Record, Robbed, State, Task,
};

/// The back end of Flocker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackEnd {
    /// Detaches no device that is mounted, as EBS, Cinder and the embedded Flocker.
    Exclusive,
    /// Forgets a device that is still mounted when it detaches it, and attaches the volume again, as Flocker's loopback back
    /// end.
    AttachesTwice,
}

/// Which service attaches volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flow {
    /// The controller, before `NodeStage`.
    Controller,
    /// The node, in `NodeStage`.
    Node,
}

/// The rules of the protocol, each of which can be taken out. The crate's documentation says where each is in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Guards {
    /// `NodeStage` holds Flocker's mount.
    pub pin: bool,
    /// An attachment acquires the lease before it moves.
    pub lease_before_move: bool,
    /// An attachment reads lease and primary last.
    pub attach_reads_last: bool,
    /// `NodeStage` reads lease and primary after it has pinned.
    pub stage_reads_last: bool,
    /// A release reads whose the lease is before it sends the DELETE, which has no condition.
    pub release_reads_first: bool,
    /// A lease of another node that a DELETE hit is acquired again for it.
    pub puts_back: bool,
    /// Writes are stopped on a volume whose lease is another node's and whose pin is lost.
    pub stops_writes: bool,
    /// Where no node has the lease and the pin is lost, the configured primary decides whether writes are stopped, and whether
    /// the lease is acquired again.
    pub asks_primary: bool,
    /// Writes are stopped on a volume whose pin is lost and that Flocker has mounted from another device, whatever its lease.
    pub stops_replaced: bool,
    /// A lease that staging took is acquired again when another client releases it under a task.
    pub leases_again: bool,
    /// One that a controller acquired is not.
    pub leaves_controllers_leases: bool,
    /// A volume that nothing uses, and whose lease is not this node's, is let go.
    pub lets_go: bool,
    /// The plugin mounts the device under a name of its own.
    pub own_device_name: bool,
    /// A volume that is not as staging left it is not published.
    pub publishes_healthy_only: bool,
    /// A lease that is still to be released survives the process, and the boot.
    pub remembers_releases: bool,
    /// A volume is pinned again when the plugin starts.
    pub pins_again: bool,
}

impl Guards {
    /// All of them.
    pub const ALL: Guards = Guards {
        pin: true,
        lease_before_move: true,
        attach_reads_last: true,
        stage_reads_last: true,
        release_reads_first: true,
        puts_back: true,
        stops_writes: true,
        asks_primary: true,
        stops_replaced: true,
        leases_again: true,
        leaves_controllers_leases: true,
        lets_go: true,
        own_device_name: true,
        publishes_healthy_only: true,
        remembers_releases: true,
        pins_again: true,
    };
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The back end.
    pub back_end: BackEnd,
    /// Which service attaches.
    pub flow: Flow,
    /// Whether a lease is taken from a node that is gone.
    pub takeover: bool,
    /// Whether the orchestrator calls `ControllerPublish` again where `NodeStage` says that the volume is not attached. The kubelet
    /// does not.
    pub attaches_again: bool,
    /// The bounds.
    pub bounds: Budget,
    /// The guards that are in.
    pub guards: Guards,
}

impl Setup {
    /// The beginning: the volume was made on node A, which has it mounted, and the orchestrator places a task there.
    #[must_use]
    pub fn initial(&self) -> State {
        let here = |node: Node| OnNode {
            agent: true,
            received: Some(Received {
                is_primary: node == Node::A,
                has_lease: false,
            }),
            listed: true,
            flockers_mount: node == Node::A,
            alias: Alias::None,
            stopped: false,
            flockers_is_stopped: false,
            plugin: true,
            pin: false,
            record: Record::None,
            same_mount: false,
            unseen: false,
            held_elsewhere: false,
            rpc: NodeRpc::Idle,
            controller: Controller::Idle,
            attachment: Attachment::Detached,
            task: Task::None,
            robbed: Robbed::No,
            outrun: false,
        };
        let mut state = State {
            primary: Node::A,
            lease: None,
            attached: Some(Node::A),
            nodes: Node::BOTH.map(here),
            late: None,
            left: self.bounds,
            stray_lease: false,
            published_another: false,
        };
        crate::orchestrator::place(&mut state, self, Node::A);
        state
    }
}
