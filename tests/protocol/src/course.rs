//! A course: the steps of the model from the beginning to a violation, in a form that is written to a file and played.
//!
//! A file of a course is JSON: `name`, `back_end` (`exclusive`, `attaches-twice`), `flow` (`controller`, `node`),
//! `takeover`, and `steps`, each `["<step>", "<node>"]` and, where it is a request to Flocker, `["<step>", "<node>",
//! "<fate>"]`. The integration tests read the same file with the same code.

use serde::{Deserialize, Serialize};

/// Which service attaches volumes, and the other settings with which a course is played.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Course {
    /// What it shows.
    pub name: String,
    /// The kind of back end, as in the documentation of this module.
    pub back_end: String,
    /// Who attaches, as there.
    pub flow: String,
    /// Whether a lease is taken from a node that is gone.
    pub takeover: bool,
    /// The steps, from the first placement, which node A's task waits for.
    pub steps: Vec<Step>,
}

/// What happens to a request and its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is carried out, and its sender gets the reply.
    Answered,
    /// It is carried out, and its sender gets no reply.
    ReplyLost,
    /// Its sender gets no reply, and it is carried out later.
    Late,
}

/// What one step is about: the process or request, and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The orchestrator places a task on the node.
    Place,
    /// The orchestrator ends what it placed there, in order.
    Drop,
    /// The same without `NodeUnstage`, as Swarm does.
    DropStaged,
    /// It detaches the volume from the node by `ControllerUnpublish` alone.
    DetachByForce,
    /// What still runs on a node from which the volume was detached by force ends, in order.
    CleanUp,

    /// An attachment reads leases and primary.
    AttachReads,
    /// It takes the lease from a node that is gone: DELETE.
    AttachTakesOver,
    /// It acquires the lease: POST.
    AttachLeases,
    /// It moves the volume: POST.
    AttachMoves,
    /// No other node has the volume any more, and its last read confirms lease and primary.
    AttachEnds,
    /// Its last read finds another lease or primary, and it starts over.
    AttachStartsOver,
    /// `ControllerUnpublish` reads the lease.
    DetachReads,
    /// It sends the DELETE.
    DetachReleases,
    /// It acquires the lease again that it hit by mistake: POST.
    DetachPutsBack,

    /// `NodeStage` writes its record.
    StageBegins,
    /// `NodeStage` pins Flocker's mount.
    StagePins,
    /// Its last read shows lease and primary as this node's.
    StageReads,
    /// A read shows that they are not: it is undone.
    StageIsRefused,
    /// It mounts the device at the staging path, and succeeds.
    StageMounts,
    /// `NodePublish` succeeds, and the task starts to write.
    Publish,
    /// The volume's `NodeUnpublish`.
    Unpublish,
    /// `NodeUnstage` unmounts.
    UnstageUnmounts,
    /// `NodeUnstage` unpins, and removes the record.
    UnstageEnds,
    /// A release by the node reads the lease.
    NodeReleaseReads,
    /// It sends the DELETE.
    NodeReleases,
    /// It acquires the lease again that it hit by mistake: POST.
    NodePutsBack,
    /// A release that an earlier call or process did not finish goes on.
    NodeReleaseGoesOn,
    /// The watch reads the leases, and does what they require.
    WatchReads,

    /// The agent receives configuration and leases.
    AgentReceives,
    /// The agent reports what it has.
    AgentReports,
    /// The agent unmounts.
    AgentUnmounts,
    /// The agent detaches the storage.
    AgentDetaches,
    /// The agent attaches the storage.
    AgentAttaches,
    /// The agent mounts.
    AgentMounts,
    /// Flocker stops listing a node whose agent is silent.
    NodeExpires,
    /// A request that was late is carried out.
    LateRequestArrives,

    /// The agent is killed, or cut off from the control service.
    KillAgent,
    /// It starts.
    StartAgent,
    /// The plugin of the node is killed.
    KillPlugin,
    /// It starts, and pins what is staged.
    StartPlugin,
    /// The machine restarts; agent and plugin start by steps of their own.
    Reboot,
    /// The controller is killed and starts again.
    RestartController,
    /// The control service is killed and starts again: it lists no node until agents report.
    RestartControlService,
}

/// One step: what happens, and on which node; steps that are about no node carry A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Step {
    /// A step that is no request.
    Plain(What, At),
    /// A request to Flocker.
    Request(What, At, Fate),
}

/// The node of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum At {
    /// Where the volume is at first.
    A,
    /// The other one.
    B,
}

impl Step {
    /// What happens.
    #[must_use]
    pub fn what(self) -> What {
        match self {
            Step::Plain(what, _) | Step::Request(what, _, _) => what,
        }
    }

    /// Where.
    #[must_use]
    pub fn at(self) -> At {
        match self {
            Step::Plain(_, at) | Step::Request(_, at, _) => at,
        }
    }

    /// What happens to the request.
    #[must_use]
    pub fn fate(self) -> Fate {
        match self {
            Step::Plain(..) => Fate::Answered,
            Step::Request(_, _, fate) => fate,
        }
    }
}
