//! What is to be done about a staged volume, given its lease and its use. No other function decides that.

use std::time::Duration;

use uuid::Uuid;

use crate::host::{LeaseCondition, Protection};

/// The lease of a staged volume, as a fresh read showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseView {
    /// It is that of the node for which the volume is staged.
    Own,
    /// No node holds it.
    NoNodes,
    /// This other node holds it.
    OtherNodes(Uuid),
}

/// What is known of a staged volume whose lease may not be this node's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    pub(crate) lease: LeaseView,
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
    /// Its file system is shut down without a flush: it is in use, and this other node may have it.
    StopWrites(Uuid),
    /// It is unmounted and released.
    LetGo,
}

/// Returns what is to be done about a staged volume.
pub(crate) fn decide(evidence: &Evidence) -> Verdict {
    let condition = match evidence.lease {
        LeaseView::Own => return Verdict::Fine,
        LeaseView::NoNodes => LeaseCondition::NotLeased,
        // Where nothing uses the volume, the unmount writes what its last task has left in the cache: a backend that attaches a
        // volume once has not given it to the other node while it is mounted here, and that data would be lost.
        LeaseView::OtherNodes(node) if evidence.protection == Protection::Lost && evidence.used => {
            return Verdict::StopWrites(node);
        }
        LeaseView::OtherNodes(node) => LeaseCondition::of_other(node, evidence.protection),
    };
    match (condition, evidence.used) {
        // The other node waits for it, or has it.
        (condition, false) if condition.holder().is_some() => Verdict::LetGo,
        (LeaseCondition::NotLeased, false) if evidence.unused_for >= evidence.grace => Verdict::LetGo,
        // No controller looks after this lease, so another orchestrator of this node gave it away. A lease that a
        // controller acquired is left alone: a forced detachment has to succeed.
        (LeaseCondition::NotLeased, true) if evidence.takes_lease && !evidence.just_released => {
            Verdict::LeaseAgain
        }
        (condition, _) => Verdict::Abnormal(condition),
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

    #[test]
    fn writes_are_stopped_only_where_a_volume_is_used_whose_lease_another_node_has_and_whose_pin_was_lost() {
        let (stopped, unstoppable) = (
            Verdict::Abnormal(LeaseCondition::Stopped(OTHER)),
            Verdict::Abnormal(LeaseCondition::Unstoppable(OTHER)),
        );
        let held = Verdict::Abnormal(LeaseCondition::HeldBy(OTHER));
        for (protection, in_use, unused) in [
            (Protection::Pinned, held, Verdict::LetGo),
            (Protection::Lost, Verdict::StopWrites(OTHER), Verdict::LetGo),
            (Protection::Stopped, stopped, Verdict::LetGo),
            (Protection::Unstoppable, unstoppable, Verdict::LetGo),
        ] {
            for takes_lease in [false, true] {
                for (used, expected) in [(true, in_use), (false, unused)] {
                    let of_other = Evidence {
                        takes_lease,
                        used,
                        protection,
                        ..evidence(LeaseView::OtherNodes(OTHER))
                    };
                    assert_eq!(decide(&of_other), expected, "{of_other:?}");
                    for lease in [LeaseView::Own, LeaseView::NoNodes] {
                        let own = Evidence { lease, ..of_other };
                        assert!(!matches!(decide(&own), Verdict::StopWrites(_)), "{own:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_done_under_the_lease_of_this_node_and_nothing_in_use_is_let_go() {
        for bits in 0..16_u8 {
            let bit = |number: u8| bits & 1 << number != 0;
            for lease in [LeaseView::Own, LeaseView::NoNodes, LeaseView::OtherNodes(OTHER)] {
                let evidence = Evidence {
                    takes_lease: bit(0),
                    used: bit(1),
                    unused_for: if bit(2) { GRACE } else { Duration::ZERO },
                    just_released: bit(3),
                    ..evidence(lease)
                };
                let verdict = decide(&evidence);
                assert_eq!(verdict == Verdict::Fine, lease == LeaseView::Own, "{evidence:?}");
                assert!(verdict != Verdict::LetGo || !evidence.used, "{evidence:?}");
                let may_lease = evidence.takes_lease && lease == LeaseView::NoNodes && evidence.used;
                assert!(verdict != Verdict::LeaseAgain || may_lease, "{evidence:?}");
            }
        }
    }
}
