//! What is to be done about a staged volume, given its lease and its use. No other function decides that.

use std::time::Duration;

use uuid::Uuid;

use crate::host::{LeaseCondition, Protection, StopReason};

/// The lease of a staged volume, as a fresh read showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseView {
    /// It is that of the node for which the volume is staged.
    Own,
    /// No node holds it.
    NoNodes,
    /// This other node holds it.
    OtherNodes(Uuid),
    /// A node holds it, and which one cannot be read.
    Unreadable,
}

/// Where Flocker is configured to have a volume, as a fresh read showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrimaryView {
    /// On this node.
    Here,
    /// On this other node.
    At(Uuid),
    /// That was not read, or the configuration does not say it of a volume that exists. It proves nothing.
    Unknown,
}

/// What is known of a staged volume whose lease may not be this node's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    pub(crate) lease: LeaseView,
    /// Decides only where [`Evidence::asks_primary`] says so, and is read only there.
    pub(crate) primary: PrimaryView,
    /// Whether staging took the lease, so that nothing else takes care of it.
    pub(crate) takes_lease: bool,
    /// Whether anything uses the volume; what cannot be read counts as a use.
    pub(crate) used: bool,
    /// How long it has been known that nothing uses it and that the lease is not this node's.
    pub(crate) unused_for: Duration,
    /// How long such a volume stays staged.
    pub(crate) grace: Duration,
    /// Whether this process has released the lease within the last minute, as it was asked to.
    pub(crate) just_released: bool,
    /// Whether another node may have the volume, and this one can write to it.
    pub(crate) protection: Protection,
}

/// What is to be done about a staged volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: this node may use it.
    Fine,
    /// Its lease is acquired again.
    LeaseAgain,
    /// It is abnormal, and stays as it is.
    Abnormal(LeaseCondition),
    /// Its file system is shut down without a flush: another node may have the volume.
    StopWrites(StopReason),
    /// It is unmounted and released.
    LetGo,
}

impl Evidence {
    /// Whether the configured primary decides: no lease says whose the volume is, and it is in use without protection.
    pub(crate) fn asks_primary(&self) -> bool {
        let is_lost = self.protection != Protection::Pinned;
        self.used
            && match self.lease {
                LeaseView::Own | LeaseView::OtherNodes(_) => false,
                LeaseView::NoNodes | LeaseView::Unreadable => is_lost,
            }
    }

    /// Why this node must not write to the volume, where its protection was lost and another node may have it.
    fn stop_reason(&self) -> Option<StopReason> {
        let elsewhere = match (self.lease, self.primary) {
            (LeaseView::OtherNodes(node), _) => Some(StopReason::LeaseOf(node)),
            // It was moved away, and may have been released there since.
            (LeaseView::NoNodes | LeaseView::Unreadable, PrimaryView::At(node)) => {
                Some(StopReason::PrimaryIs(node))
            }
            _ => None,
        };
        match self.protection {
            Protection::Pinned => None,
            // Flocker's mount may only be missing, which proves nothing.
            Protection::Lost => elsewhere,
            Protection::Replaced | Protection::Stopped | Protection::Unstoppable => {
                Some(elsewhere.unwrap_or(StopReason::Replaced))
            }
        }
    }
}

/// Returns what is to be done about a staged volume.
pub(crate) fn decide(evidence: &Evidence) -> Verdict {
    let reason = evidence.stop_reason();
    let stops = match evidence.protection {
        Protection::Pinned | Protection::Stopped | Protection::Unstoppable => false,
        // Where nothing uses the volume, the unmount writes what its last task has left in the cache: a backend that attaches a
        // volume once has not given it to the other node while it is mounted here, and that data would be lost.
        Protection::Lost => evidence.used,
        // What is cached here belongs to another file system than the one that Flocker mounts by now.
        Protection::Replaced => true,
    };
    let condition = match (reason, evidence.lease) {
        (Some(reason), _) if stops => return Verdict::StopWrites(reason),
        (Some(reason), _) if evidence.protection != Protection::Lost => {
            LeaseCondition::after_stop(reason, evidence.protection)
        }
        (_, LeaseView::Own) => return Verdict::Fine,
        (_, LeaseView::NoNodes) => LeaseCondition::NotLeased,
        (_, LeaseView::Unreadable) => LeaseCondition::Unreadable,
        (_, LeaseView::OtherNodes(node)) => LeaseCondition::HeldBy(node),
    };
    // The pin proves that no other node has it, wherever it is to move; without one, the configuration has to show it.
    let no_other_has_it = evidence.protection == Protection::Pinned || evidence.primary == PrimaryView::Here;
    let may_lease = evidence.takes_lease && !evidence.just_released && no_other_has_it;
    match (evidence.lease, evidence.used) {
        // The other node waits for it, or has it.
        (LeaseView::OtherNodes(_), false) => Verdict::LetGo,
        (LeaseView::NoNodes, false) if evidence.unused_for >= evidence.grace => Verdict::LetGo,
        // No controller looks after this lease, so another orchestrator of this node gave it away. A lease that a
        // controller acquired is left alone: a forced detachment has to succeed.
        (LeaseView::NoNodes, true) if condition == LeaseCondition::NotLeased && may_lease => {
            Verdict::LeaseAgain
        }
        _ => Verdict::Abnormal(condition),
    }
}

#[cfg(test)]
mod tests;
