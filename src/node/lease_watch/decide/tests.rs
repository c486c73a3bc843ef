//! The verdicts.

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
fn a_lease_is_acquired_again_only_where_no_node_has_it_and_no_other_node_can_have_the_volume() {
    let mut again = 0;
    for evidence in all() {
        if decide(&evidence) != Verdict::LeaseAgain {
            continue;
        }
        again += 1;
        assert_eq!(evidence.lease, LeaseView::NoNodes, "{evidence:?}");
        assert!(
            evidence.protection == Protection::Pinned || evidence.primary == PrimaryView::Here,
            "{evidence:?}"
        );
        assert!(
            evidence.takes_lease && evidence.used && !evidence.just_released,
            "{evidence:?}"
        );
        let writes = matches!(evidence.protection, Protection::Pinned | Protection::Lost);
        assert!(writes, "not of what was stopped: {evidence:?}");
    }
    assert_eq!(
        again, 8,
        "pinned with any primary, or lost with this one, whatever the time"
    );
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
