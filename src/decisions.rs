//! The decisions about a volume on a node, for the model of the protocol.
//!
//! The model in `tests/protocol` makes these decisions with the functions that the node makes them with, so that model and
//! program cannot come apart. It sees what those functions decide from in a few words; nothing else uses this module, and
//! it is no interface for other programs.

use std::path::PathBuf;
use std::time::Duration;

use host_fs::mount::Mount;
use uuid::Uuid;

use crate::host::lifecycle::{self, AliasView, Elsewhere, Goal, Pinned, TargetView, VolumeState, observe};
use crate::host::records::{Record, RecordState};
use crate::host::{LeaseCondition, Protection};
use crate::node::lease_watch::decide::{self, LeaseView, PrimaryView, Verdict};

const THIS_NODE: Uuid = Uuid::from_u128(1);
const OTHER_NODE: Uuid = Uuid::from_u128(2);
const THIS_BOOT: Uuid = Uuid::from_u128(3);
const DATASET: Uuid = Uuid::from_u128(4);

/// The holder of the lease, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// This node.
    ThisNode,
    /// No node.
    NoNode,
    /// Another node.
    AnotherNode,
}

/// The configured primary, as the watch has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Primary {
    /// This node.
    ThisNode,
    /// Another node.
    AnotherNode,
    /// It was not read.
    NotRead,
}

/// What the watch of the leases does about a staged volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseVerdict {
    /// Nothing.
    Fine,
    /// The lease is acquired again.
    LeaseAgain,
    /// No node has the lease: reported.
    NotLeased,
    /// Another node has the lease: reported, and no longer published.
    HeldElsewhere,
    /// Writes are stopped.
    StopWrites,
    /// The volume is unmounted and unpinned.
    LetGo,
}

/// Whether another node may have a volume, and this one can write to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Flocker's mount has been held without interruption.
    Pinned,
    /// It has not.
    Lost,
    /// It has not, and Flocker has mounted the volume here from another device.
    Replaced,
    /// It has not, and writes were stopped.
    Stopped,
}

/// Returns what the watch of the leases does about a staged volume. The grace of a volume that nothing uses is over.
pub fn about_lease(
    holder: Holder,
    primary: Primary,
    takes_lease: bool,
    used: bool,
    hold: Hold,
) -> LeaseVerdict {
    let evidence = decide::Evidence {
        lease: match holder {
            Holder::ThisNode => LeaseView::Own,
            Holder::NoNode => LeaseView::NoNodes,
            Holder::AnotherNode => LeaseView::OtherNodes(OTHER_NODE),
        },
        primary: match primary {
            Primary::ThisNode => PrimaryView::Here,
            Primary::AnotherNode => PrimaryView::At(OTHER_NODE),
            Primary::NotRead => PrimaryView::Unknown,
        },
        takes_lease,
        used,
        unused_for: Duration::ZERO,
        grace: Duration::ZERO,
        just_released: false,
        protection: match hold {
            Hold::Pinned => Protection::Pinned,
            Hold::Lost => Protection::Lost,
            Hold::Replaced => Protection::Replaced,
            Hold::Stopped => Protection::Stopped,
        },
    };
    match decide::decide(&evidence) {
        Verdict::Fine => LeaseVerdict::Fine,
        Verdict::LeaseAgain => LeaseVerdict::LeaseAgain,
        Verdict::Abnormal(LeaseCondition::NotLeased | LeaseCondition::Unreadable) => LeaseVerdict::NotLeased,
        Verdict::Abnormal(_) => LeaseVerdict::HeldElsewhere,
        Verdict::StopWrites(_) => LeaseVerdict::StopWrites,
        Verdict::LetGo => LeaseVerdict::LetGo,
    }
}

/// What the record of a volume says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recorded {
    /// There is none.
    Nothing,
    /// Staging has begun.
    Staging,
    /// It is staged.
    Staged,
    /// The lease is to be released.
    ReleasePending,
    /// It is of another boot.
    OfAnotherBoot,
}

/// A volume on this node.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its record.
    pub recorded: Recorded,
    /// Whether staging takes the lease.
    pub takes_lease: bool,
    /// The plugin's mount.
    pub mounted: Option<Mount>,
    /// Flocker's mount, if the plugin holds it; it is the visible one then.
    pub pinned: Option<Mount>,
    /// Whether it is published.
    pub published: bool,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// The goal is reached.
    Nothing,
    /// An error.
    Refuse,
    /// Stage.
    Stage,
    /// Publish.
    Publish,
    /// Unmount, and then unpin or release the lease.
    Unmount {
        /// Whether the pin goes too.
        unpin: bool,
        /// Whether the lease goes too.
        release_lease: bool,
    },
    /// Pin Flocker's mount again.
    PinAgain,
    /// Remember that the lease is to be released, and release it.
    MarkReleasePending,
    /// Release the lease.
    ReleaseLease,
    /// Remove the record.
    Forget,
}

impl Volume {
    /// Returns how `NodeStage` goes on.
    pub fn stage(&self) -> Next {
        self.next(Goal::Stage { node: THIS_NODE })
    }

    /// Returns how `NodePublish` goes on at a target where nothing is mounted.
    pub fn publish(&self) -> Next {
        self.next(Goal::Publish {
            target: TargetView::Nothing,
            single: false,
            broken: None,
        })
    }

    /// Returns how `NodeUnstage` goes on.
    pub fn unstage(&self) -> Next {
        self.next(Goal::Unstage)
    }

    /// Returns how the undoing of a staging goes on that ended in a final error.
    pub fn undo_stage(&self) -> Next {
        self.next(Goal::UndoStage)
    }

    /// Returns what the start of the plugin does.
    pub fn restore(&self) -> Next {
        self.next(Goal::Restore)
    }

    fn next(&self, goal: Goal) -> Next {
        match lifecycle::decide(&self.state(), goal) {
            lifecycle::Action::Stage => Next::Stage,
            lifecycle::Action::Bind => Next::Publish,
            lifecycle::Action::UnmountAlias { afterwards, .. } => Next::Unmount {
                unpin: afterwards.unpin,
                release_lease: afterwards.release_lease,
            },
            lifecycle::Action::PinAgain => Next::PinAgain,
            lifecycle::Action::MarkReleasePending => Next::MarkReleasePending,
            lifecycle::Action::ReleaseLease => Next::ReleaseLease,
            lifecycle::Action::Forget => Next::Forget,
            lifecycle::Action::Refuse(_) => Next::Refuse,
            lifecycle::Action::Nothing
            | lifecycle::Action::UnmountTarget
            | lifecycle::Action::LeaveTarget
            | lifecycle::Action::Measure(_) => Next::Nothing,
        }
    }

    fn state(&self) -> VolumeState {
        let (boot, state) = match self.recorded {
            Recorded::Nothing => (THIS_BOOT, None),
            Recorded::Staging => (THIS_BOOT, Some(RecordState::Staging)),
            Recorded::Staged => (THIS_BOOT, Some(RecordState::Staged)),
            Recorded::ReleasePending => (THIS_BOOT, Some(RecordState::ReleasePending)),
            Recorded::OfAnotherBoot => (Uuid::nil(), Some(RecordState::Staged)),
        };
        let path = PathBuf::from("/staging");
        let record = state.map(|state| Record {
            state,
            ..Record::staging(&path, "volume", DATASET, THIS_NODE, boot, self.takes_lease)
        });
        observe(lifecycle::Evidence {
            record,
            boot: THIS_BOOT,
            alias: self
                .mounted
                .clone()
                .map_or(AliasView::Nothing, |mount| AliasView::Ours(Box::new(mount))),
            pin: self
                .pinned
                .clone()
                .map_or(Pinned::No, |mount| Pinned::InPlace(Box::new(mount))),
            published_at: self.published.then(|| PathBuf::from("/target")),
            elsewhere: Elsewhere::default(),
        })
    }
}
