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
    /// Whether the configured primary decides: no lease says whose the volume is, and it is in use without protection, or its
    /// lease would be acquired again.
    pub(crate) fn asks_primary(&self) -> bool {
        let is_lost = self.protection != Protection::Pinned;
        self.used
            && match self.lease {
                LeaseView::Own | LeaseView::OtherNodes(_) => false,
                LeaseView::NoNodes => is_lost || self.takes_lease && !self.just_released,
                LeaseView::Unreadable => is_lost,
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
    let may_lease = evidence.takes_lease && !evidence.just_released && evidence.primary == PrimaryView::Here;
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
mod tests {
    use super::*;

    const OTHER: Uuid = Uuid::from_u128(2);
    const GRACE: Duration = Duration::from_secs(60);

    fn evidence(lease: LeaseView) -> Evidence {
        Evidence {
            lease,
            primary: PrimaryView::Here,
            takes_lease: false,
            used: true,
            unused_for: Duration::ZERO,
            grace: GRACE,
            just_released: false,
            protection: Protection::Pinned,
        }
    }

    #[test]
    fn every_combination_of_lease_and_use_has_one_verdict() {
        let abnormal = Verdict::Abnormal;
        let (not_leased, held) = (
            abnormal(LeaseCondition::NotLeased),
            abnormal(LeaseCondition::HeldBy(OTHER)),
        );
        let long = GRACE;
        let short = GRACE / 2;
        // Lease; takes_lease, used, unused for, just released; verdict.
        let table = [
            (
                LeaseView::NoNodes,
                (true, true, short, false),
                Verdict::LeaseAgain,
            ),
            (LeaseView::NoNodes, (true, true, short, true), not_leased),
            (LeaseView::NoNodes, (false, true, short, false), not_leased),
            (LeaseView::NoNodes, (false, true, short, true), not_leased),
            (LeaseView::NoNodes, (true, false, short, false), not_leased),
            (LeaseView::NoNodes, (false, false, short, false), not_leased),
            (LeaseView::NoNodes, (true, false, long, false), Verdict::LetGo),
            (LeaseView::NoNodes, (false, false, long, true), Verdict::LetGo),
            (LeaseView::OtherNodes(OTHER), (true, true, short, false), held),
            (LeaseView::OtherNodes(OTHER), (false, true, long, false), held),
            (
                LeaseView::OtherNodes(OTHER),
                (true, false, Duration::ZERO, true),
                Verdict::LetGo,
            ),
            (
                LeaseView::OtherNodes(OTHER),
                (false, false, Duration::ZERO, false),
                Verdict::LetGo,
            ),
        ];
        for (lease, (takes_lease, used, unused_for, just_released), verdict) in table {
            let evidence = Evidence {
                takes_lease,
                used,
                unused_for,
                just_released,
                ..evidence(lease)
            };
            assert_eq!(decide(&evidence), verdict, "{evidence:?}");
        }
    }

    const ELSEWHERE: Uuid = Uuid::from_u128(3);
    const LEASES: [LeaseView; 4] = [
        LeaseView::Own,
        LeaseView::NoNodes,
        LeaseView::OtherNodes(OTHER),
        LeaseView::Unreadable,
    ];
    const PRIMARIES: [PrimaryView; 3] = [
        PrimaryView::Here,
        PrimaryView::At(ELSEWHERE),
        PrimaryView::Unknown,
    ];
    const PROTECTIONS: [Protection; 5] = [
        Protection::Pinned,
        Protection::Lost,
        Protection::Replaced,
        Protection::Stopped,
        Protection::Unstoppable,
    ];

    /// Every combination apart from the times.
    fn all() -> impl Iterator<Item = Evidence> {
        (0..LEASES.len() * PRIMARIES.len() * PROTECTIONS.len() * 16).map(|number| {
            let bit = |bit: usize| number & 1 << bit != 0;
            let rest = number / 16;
            Evidence {
                primary: PRIMARIES[rest / LEASES.len() % PRIMARIES.len()],
                protection: PROTECTIONS[rest / LEASES.len() / PRIMARIES.len()],
                takes_lease: bit(0),
                used: bit(1),
                unused_for: if bit(2) { GRACE } else { Duration::ZERO },
                just_released: bit(3),
                ..evidence(LEASES[rest % LEASES.len()])
            }
        })
    }

    #[test]
    fn every_combination_of_protection_lease_and_primary_has_one_verdict_for_a_volume_in_use() {
        use PrimaryView::{At, Here, Unknown};
        let (own, none, unread) = (LeaseView::Own, LeaseView::NoNodes, LeaseView::Unreadable);
        let theirs = LeaseView::OtherNodes(OTHER);
        let (by_lease, moved) = (StopReason::LeaseOf(OTHER), StopReason::PrimaryIs(ELSEWHERE));
        let stop = Verdict::StopWrites;
        let abnormal = Verdict::Abnormal;
        let held = abnormal(LeaseCondition::HeldBy(OTHER));
        let not_leased = abnormal(LeaseCondition::NotLeased);
        let unreadable = abnormal(LeaseCondition::Unreadable);
        // Lease, primary; verdict where pinned, lost, replaced.
        let table = [
            (
                own,
                Here,
                Verdict::Fine,
                Verdict::Fine,
                stop(StopReason::Replaced),
            ),
            (
                own,
                At(ELSEWHERE),
                Verdict::Fine,
                Verdict::Fine,
                stop(StopReason::Replaced),
            ),
            (
                own,
                Unknown,
                Verdict::Fine,
                Verdict::Fine,
                stop(StopReason::Replaced),
            ),
            (none, Here, not_leased, not_leased, stop(StopReason::Replaced)),
            (none, At(ELSEWHERE), not_leased, stop(moved), stop(moved)),
            (none, Unknown, not_leased, not_leased, stop(StopReason::Replaced)),
            (theirs, Here, held, stop(by_lease), stop(by_lease)),
            (theirs, At(ELSEWHERE), held, stop(by_lease), stop(by_lease)),
            (theirs, Unknown, held, stop(by_lease), stop(by_lease)),
            (unread, Here, unreadable, unreadable, stop(StopReason::Replaced)),
            (unread, At(ELSEWHERE), unreadable, stop(moved), stop(moved)),
            (
                unread,
                Unknown,
                unreadable,
                unreadable,
                stop(StopReason::Replaced),
            ),
        ];
        for (lease, primary, pinned, lost, replaced) in table {
            let in_use = Evidence {
                primary,
                ..evidence(lease)
            };
            for (protection, expected) in [
                (Protection::Pinned, pinned),
                (Protection::Lost, lost),
                (Protection::Replaced, replaced),
            ] {
                let in_use = Evidence { protection, ..in_use };
                assert_eq!(decide(&in_use), expected, "{in_use:?}");
            }
            let reason = match replaced {
                Verdict::StopWrites(reason) => reason,
                other => panic!("{other:?}"),
            };
            for (protection, condition) in [
                (Protection::Stopped, LeaseCondition::Stopped(reason)),
                (Protection::Unstoppable, LeaseCondition::Unstoppable(reason)),
            ] {
                let in_use = Evidence { protection, ..in_use };
                assert_eq!(decide(&in_use), abnormal(condition), "{in_use:?}");
            }
        }
    }

    #[test]
    fn writes_are_stopped_only_where_the_pin_was_lost_and_of_an_unused_volume_only_where_it_was_replaced() {
        for evidence in all() {
            let Verdict::StopWrites(reason) = decide(&evidence) else {
                continue;
            };
            match evidence.protection {
                Protection::Lost => assert!(
                    evidence.used && reason != StopReason::Replaced && evidence.lease != LeaseView::Own,
                    "{evidence:?}"
                ),
                Protection::Replaced => {}
                _ => panic!("{evidence:?}"),
            }
            let by_primary = matches!(reason, StopReason::PrimaryIs(_));
            assert!(
                !by_primary || evidence.primary == PrimaryView::At(ELSEWHERE),
                "absence is no proof: {evidence:?}"
            );
        }
    }

    #[test]
    fn a_lease_is_acquired_again_only_where_no_node_has_it_and_the_configured_primary_is_this_node() {
        let mut again = 0;
        for evidence in all() {
            if decide(&evidence) != Verdict::LeaseAgain {
                continue;
            }
            again += 1;
            assert_eq!(evidence.lease, LeaseView::NoNodes, "{evidence:?}");
            assert_eq!(evidence.primary, PrimaryView::Here, "{evidence:?}");
            assert!(
                evidence.takes_lease && evidence.used && !evidence.just_released,
                "{evidence:?}"
            );
            let writes = matches!(evidence.protection, Protection::Pinned | Protection::Lost);
            assert!(writes, "not of what was stopped: {evidence:?}");
        }
        assert_eq!(again, 4, "pinned or lost, whatever the time");
    }

    #[test]
    fn the_primary_is_read_wherever_it_decides_and_only_there() {
        for evidence in all() {
            let with = |primary| decide(&Evidence { primary, ..evidence });
            let decides = PRIMARIES
                .iter()
                .any(|primary| with(*primary) != with(PrimaryView::Unknown));
            // Of what nothing uses, only the words depend on it.
            assert!(
                !decides || evidence.asks_primary() || !evidence.used,
                "{evidence:?}"
            );
            if evidence.lease == LeaseView::Own || matches!(evidence.lease, LeaseView::OtherNodes(_)) {
                assert!(!evidence.asks_primary(), "{evidence:?}");
            }
        }
        let pinned = evidence(LeaseView::NoNodes);
        assert!(!pinned.asks_primary(), "a controller looks after it");
    }

    #[test]
    fn a_volume_that_nothing_uses_is_let_go_for_another_node_or_after_the_grace_and_never_while_in_use() {
        for evidence in all() {
            let verdict = decide(&evidence);
            let stops = matches!(verdict, Verdict::StopWrites(_));
            let expected = match evidence.lease {
                LeaseView::OtherNodes(_) => !evidence.used,
                LeaseView::NoNodes => !evidence.used && evidence.unused_for >= GRACE,
                LeaseView::Own | LeaseView::Unreadable => false,
            };
            assert_eq!(verdict == Verdict::LetGo, expected && !stops, "{evidence:?}");
            let is_fine = evidence.lease == LeaseView::Own
                && matches!(evidence.protection, Protection::Pinned | Protection::Lost);
            assert_eq!(verdict == Verdict::Fine, is_fine, "{evidence:?}");
        }
    }
}
