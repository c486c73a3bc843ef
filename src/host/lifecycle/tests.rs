//! Every state with every goal: by a table that a person can check, and by rules where the table would be too long.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use host_fs::mount::{AttributeChange, MountTable};
use proptest::prelude::*;
use rustix::mount::MountAttrFlags;

use super::*;
use crate::host::records::{Record, RecordState};

fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

const THIS_NODE: Uuid = Uuid::from_u128(0xa);
const OTHER_NODE: Uuid = Uuid::from_u128(0xb);
const BOOT: Uuid = Uuid::from_u128(0xc);

fn mounted(source: &str, minor: u32, point: &str) -> Mount {
    let line = format!("70 27 7:{minor} / {point} rw,relatime - ext4 {source} rw\n");
    MountTable::parse(line.as_bytes()).unwrap().mounts()[0].clone()
}

fn ours(minor: u32) -> Box<Mount> {
    Box::new(mounted("/dev/flocker-csi/1", minor, "/staging/1"))
}

fn flockers(minor: u32) -> Box<Mount> {
    Box::new(mounted("/dev/loop1", minor, "/flocker/1"))
}

fn foreign() -> Box<Mount> {
    Box::new(mounted("theirs", 9, "/staging/1"))
}

fn is_ours(mount: &Mount) -> bool {
    mount.source == "/dev/flocker-csi/1"
}

fn faults() -> [Fault; 6] {
    [
        Fault::Unmounted,
        Fault::Unpinned,
        Fault::OtherDevice {
            found: ours(2),
            pinned: flockers(1),
        },
        Fault::FlockerUnmounted { pinned: flockers(1) },
        Fault::Hidden {
            mount: ours(1),
            over: foreign(),
        },
        Fault::Foreign { found: foreign() },
    ]
}

/// Every state at a staging path, with its name in the tables below.
fn ways_to_be() -> Vec<(&'static str, AtStaging)> {
    let mut ways = vec![
        ("absent", AtStaging::Absent),
        ("other boot", AtStaging::OfAnotherBoot { takes_lease: false }),
        (
            "other boot, leased",
            AtStaging::OfAnotherBoot { takes_lease: true },
        ),
        ("staging", AtStaging::Staging),
        ("staged", AtStaging::Staged),
        ("release pending", AtStaging::ReleasePending),
    ];
    let names = [
        "unmounted",
        "unpinned",
        "other device",
        "flocker unmounted",
        "hidden",
        "foreign",
    ];
    ways.extend(names.into_iter().zip(faults().map(AtStaging::Unhealthy)));
    ways
}

fn target_views() -> Vec<(&'static str, TargetView)> {
    let (mount, over) = (ours(1), foreign());
    vec![
        ("nothing", TargetView::Nothing),
        ("as asked", TargetView::AsAsked(ours(1))),
        ("otherwise", TargetView::Otherwise(ours(1))),
        ("other device", TargetView::OtherDevice(ours(2))),
        ("hidden", TargetView::Hidden { mount, over }),
        ("foreign", TargetView::Foreign(foreign())),
    ]
}

/// Names an action as the tables do.
fn name(action: &Action) -> &'static str {
    match action {
        Action::Nothing => "nothing",
        Action::Stage => "stage",
        Action::UnmountAlias { .. } => "unmount",
        Action::Bind => "bind",
        Action::UnmountTarget => "unmount target",
        Action::LeaveTarget => "leave",
        Action::PinAgain => "pin",
        Action::MarkReleasePending => "mark",
        Action::ReleaseLease => "release",
        Action::Forget => "forget",
        Action::Measure(None) => "measure",
        Action::Measure(Some(_)) => "measure, fault",
        Action::Refuse(refusal) => match refusal {
            Refusal::ForeignAlias(_) | Refusal::ForeignTarget(_) => "foreign!",
            Refusal::Hidden { .. } => "hidden!",
            Refusal::StagedAs(_) => "other node!",
            Refusal::ReleaseDueTo(_) => "release due!",
            Refusal::StillPublished(_) => "published!",
            Refusal::NotStaged(_) => "not staged!",
            Refusal::Broken(_) => "broken!",
            Refusal::SecondTarget(_) => "second!",
            Refusal::PublishedOtherwise(_) => "otherwise!",
            Refusal::PublishedFromOtherDevice(_) => "device!",
            Refusal::NotMounted(_) => "not mounted!",
        },
    }
}

fn publish(target: TargetView, single: bool, broken: bool) -> Goal {
    Goal::Publish {
        target,
        single,
        broken: broken.then(|| ": it has become read-only".to_owned()),
    }
}

/// One row for each state at a staging path, of a volume of this node that is not published and not staged elsewhere.
///
/// way: stage | unstage | undo | publish | restore | release | report
const TABLE: &str = "
absent: stage | unmount | unmount | not staged! | nothing | nothing | not mounted!
other boot: stage | unmount | unmount | not staged! | forget | nothing | not mounted!
other boot, leased: stage | unmount | unmount | not staged! | mark | nothing | not mounted!
staging: stage | unmount | unmount | not staged! | pin | nothing | not mounted!
staged: nothing | unmount | nothing | bind | pin | nothing | measure
release pending: stage | nothing | nothing | not staged! | release | release | not mounted!
unmounted: stage | unmount | unmount | not staged! | nothing | nothing | not mounted!
unpinned: stage | unmount | nothing | not staged! | pin | nothing | measure, fault
other device: stage | unmount | nothing | not staged! | pin | nothing | measure, fault
flocker unmounted: stage | unmount | nothing | not staged! | pin | nothing | measure, fault
hidden: hidden! | hidden! | hidden! | not staged! | pin | nothing | measure, fault
foreign: foreign! | foreign! | unmount | not staged! | nothing | nothing | not mounted!
";

#[test]
fn every_state_and_goal_lead_to_the_action_in_the_table() {
    let mut rows = BTreeSet::new();
    for (way, at_staging) in ways_to_be() {
        let row = TABLE
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{way}: ")));
        let cells: Vec<_> = row
            .unwrap_or_else(|| panic!("no row {way}"))
            .split(" | ")
            .collect();
        let goals = [
            Goal::Stage { node: THIS_NODE },
            Goal::Unstage,
            Goal::UndoStage,
            publish(TargetView::Nothing, false, false),
            Goal::Restore,
            Goal::Release,
            Goal::Report,
        ];
        assert_eq!(cells.len(), goals.len(), "{way}");
        for (cell, goal) in cells.into_iter().zip(goals) {
            let state = VolumeState {
                at_staging: at_staging.clone(),
                node: Some(THIS_NODE),
                ..VolumeState::default()
            };
            assert_eq!(name(&decide(&state, goal.clone())), cell, "{way}, {goal:?}");
        }
        rows.insert(way);
    }
    assert_eq!(rows.len(), TABLE.trim().lines().count());
}

#[test]
fn a_staged_volume_is_bound_only_where_nothing_is_mounted_and_nothing_forbids_it() {
    let expected = |view, single, broken, published| match (view, single, broken, published) {
        ("nothing", _, true, _) => "broken!",
        ("nothing", true, false, true) => "second!",
        ("nothing", ..) => "bind",
        ("as asked", ..) => "nothing",
        ("otherwise", ..) => "otherwise!",
        ("other device", ..) => "device!",
        ("hidden", ..) => "hidden!",
        _ => "foreign!",
    };
    for (view, target) in target_views() {
        for bits in 0..8_u8 {
            let [single, broken, published] = [1, 2, 4].map(|bit| bits & bit != 0);
            let state = VolumeState {
                at_staging: AtStaging::Staged,
                published_at: published.then(|| PathBuf::from("/other")),
                ..VolumeState::default()
            };
            let action = decide(&state, publish(target.clone(), single, broken));
            assert_eq!(
                name(&action),
                expected(view, single, broken, published),
                "{view} {bits}"
            );
        }
    }
}

#[test]
fn a_target_is_unmounted_if_ours_is_the_visible_mount_there_whatever_the_staging_path_shows() {
    for (_, at_staging) in ways_to_be() {
        for (view, target) in target_views() {
            let state = VolumeState {
                at_staging: at_staging.clone(),
                ..VolumeState::default()
            };
            let expected = match view {
                "nothing" => "leave",
                "hidden" => "hidden!",
                "foreign" => "foreign!",
                _ => "unmount target",
            };
            assert_eq!(
                name(&decide(&state, Goal::Unpublish { target })),
                expected,
                "{view}"
            );
        }
    }
}

#[test]
fn a_volume_staged_for_another_node_is_neither_staged_again_nor_is_its_record_removed() {
    for (way, at_staging) in ways_to_be() {
        let state = VolumeState {
            at_staging,
            node: Some(OTHER_NODE),
            ..VolumeState::default()
        };
        let expected = match way {
            "absent" | "other boot" | "other boot, leased" => "stage",
            "release pending" => "release due!",
            "hidden" => "hidden!",
            "foreign" => "foreign!",
            _ => "other node!",
        };
        assert_eq!(
            name(&decide(&state, Goal::Stage { node: THIS_NODE })),
            expected,
            "{way}"
        );
    }
}

#[test]
fn a_lease_is_released_with_the_last_use_on_the_node_and_a_pin_with_the_last_of_the_process() {
    for bits in 0..16_u8 {
        let [mounted, recorded, by_another_plugin, takes_lease] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
        let state = VolumeState {
            at_staging: AtStaging::Staged,
            takes_lease,
            elsewhere: Elsewhere {
                mounted,
                recorded,
                by_another_plugin,
            },
            ..VolumeState::default()
        };
        let Action::UnmountAlias { afterwards, .. } = decide(&state, Goal::Unstage) else {
            panic!("{bits}");
        };
        let used = mounted || recorded || by_another_plugin;
        assert_eq!(afterwards.release_lease, takes_lease && !used, "{bits}");
        assert_eq!(afterwards.unpin, !mounted, "{bits}");
        let pending = VolumeState {
            at_staging: AtStaging::ReleasePending,
            ..state
        };
        let expected = if used { "forget" } else { "release" };
        assert_eq!(name(&decide(&pending, Goal::Release)), expected, "{bits}");
    }
}

#[test]
fn a_published_volume_is_unstaged_only_where_it_stays_staged_elsewhere() {
    for (way, at_staging) in ways_to_be() {
        for mounted in [false, true] {
            let state = VolumeState {
                at_staging: at_staging.clone(),
                published_at: Some("/target".into()),
                elsewhere: Elsewhere {
                    mounted,
                    ..Elsewhere::default()
                },
                ..VolumeState::default()
            };
            let action = name(&decide(&state, Goal::Unstage));
            let expected = match way {
                "release pending" => "nothing",
                _ if !mounted => "published!",
                "hidden" => "hidden!",
                "foreign" => "foreign!",
                _ => "unmount",
            };
            assert_eq!(action, expected, "{way} {mounted}");
        }
    }
}

fn record(state: RecordState, boot_id: Uuid, takes_lease: bool) -> Record {
    Record {
        state,
        ..Record::staging(
            Path::new("/staging"),
            "1",
            uuid(1),
            THIS_NODE,
            boot_id,
            takes_lease,
        )
    }
}

fn evidence(record: Option<Record>, alias: AliasView, pin: Pinned) -> Evidence {
    Evidence {
        record,
        boot: BOOT,
        alias,
        pin,
        published_at: None,
        elsewhere: Elsewhere::default(),
    }
}

#[test]
fn every_record_with_every_mount_and_every_pin_is_one_state() {
    let aliases = || {
        [
            ("nothing", AliasView::Nothing),
            ("ours", AliasView::Ours(ours(1))),
            (
                "hidden",
                AliasView::Hidden {
                    mount: ours(1),
                    over: foreign(),
                },
            ),
            ("foreign", AliasView::Foreign(foreign())),
        ]
    };
    let pins = || {
        [
            ("no", Pinned::No),
            ("in place", Pinned::InPlace(flockers(1))),
            ("displaced", Pinned::Displaced(flockers(1))),
            ("other, in place", Pinned::InPlace(flockers(2))),
            ("other, displaced", Pinned::Displaced(flockers(2))),
        ]
    };
    let fault = |pin: &str| match pin {
        "no" => "unpinned",
        "in place" => "staged",
        "displaced" => "flocker unmounted",
        _ => "other device",
    };
    let name = |state: &AtStaging| {
        let same_kind = |way: &AtStaging| match (way, state) {
            (AtStaging::Unhealthy(one), AtStaging::Unhealthy(two)) => {
                std::mem::discriminant(one) == std::mem::discriminant(two)
            }
            (one, two) => one == two,
        };
        ways_to_be()
            .into_iter()
            .find(|(_, way)| same_kind(way))
            .unwrap()
            .0
    };
    let mut seen = 0;
    for (alias, view) in aliases() {
        for (pin, pinned) in pins() {
            for lease in [false, true] {
                let other_boot = if lease { "other boot, leased" } else { "other boot" };
                let records = [
                    (None, None),
                    (Some(record(RecordState::Staging, BOOT, lease)), None),
                    (Some(record(RecordState::Staged, BOOT, lease)), None),
                    (
                        Some(record(RecordState::ReleasePending, BOOT, lease)),
                        Some("release pending"),
                    ),
                    (
                        Some(record(RecordState::Staging, uuid(9), lease)),
                        Some(other_boot),
                    ),
                    (
                        Some(record(RecordState::Staged, uuid(9), lease)),
                        Some(other_boot),
                    ),
                    (
                        Some(record(RecordState::ReleasePending, uuid(9), lease)),
                        Some("release pending"),
                    ),
                ];
                for (record, fixed) in records {
                    let state = record.as_ref().map(|record| record.state);
                    let expected = fixed.unwrap_or(match (alias, state) {
                        ("hidden" | "foreign", _) => alias,
                        (_, Some(RecordState::Staging)) => "staging",
                        ("nothing", None) => "absent",
                        ("nothing", _) => "unmounted",
                        _ => fault(pin),
                    });
                    let observed = observe(evidence(record, view.clone(), pinned.clone()));
                    assert_eq!(name(&observed.at_staging), expected, "{alias} {pin} {state:?}");
                    seen += 1;
                }
            }
        }
    }
    assert_eq!(seen, 4 * 5 * 2 * 7);
}

#[test]
fn the_visible_mount_at_a_path_decides_the_view() {
    let layers = |names: &str| -> Vec<Mount> {
        let mount = |name| if name == 'o' { *ours(1) } else { *foreign() };
        names.chars().map(mount).collect()
    };
    assert_eq!(alias_view(layers(""), is_ours), AliasView::Nothing);
    assert_eq!(alias_view(layers("fo"), is_ours), AliasView::Ours(ours(1)));
    assert_eq!(alias_view(layers("ff"), is_ours), AliasView::Foreign(foreign()));
    let hidden = AliasView::Hidden {
        mount: ours(1),
        over: foreign(),
    };
    assert_eq!(alias_view(layers("of"), is_ours), hidden);
    let read_only = AttributeChange {
        set: MountAttrFlags::MOUNT_ATTR_RDONLY,
        ..AttributeChange::default()
    };
    let (staged, plain) = (ours(1), AttributeChange::default());
    let view = |top, asked| target_view(top, is_ours, &staged, asked);
    assert_eq!(view(None, plain), TargetView::Nothing);
    assert_eq!(view(Some(*ours(1)), plain), TargetView::AsAsked(ours(1)));
    assert_eq!(view(Some(*ours(1)), read_only), TargetView::Otherwise(ours(1)));
    assert_eq!(view(Some(*ours(2)), plain), TargetView::OtherDevice(ours(2)));
    assert_eq!(view(Some(*foreign()), plain), TargetView::Foreign(foreign()));
}

fn any_state() -> impl Strategy<Value = VolumeState> {
    let at_staging = prop::sample::select(ways_to_be()).prop_map(|(_, at_staging)| at_staging);
    let node = prop::sample::select(vec![None, Some(THIS_NODE), Some(OTHER_NODE)]);
    (at_staging, node, any::<[bool; 5]>()).prop_map(|(at_staging, node, bits)| VolumeState {
        at_staging,
        node,
        takes_lease: bits[0],
        published_at: bits[1].then(|| PathBuf::from("/target")),
        elsewhere: Elsewhere {
            mounted: bits[2],
            recorded: bits[3],
            by_another_plugin: bits[4],
        },
    })
}

proptest! {
    #[test]
    fn nothing_is_bound_unless_the_volume_is_staged_and_healthy(
        state in any_state(),
        (_, target) in prop::sample::select(target_views()),
        single in any::<bool>(),
        broken in any::<bool>(),
    ) {
        let action = decide(&state, publish(target.clone(), single, broken));
        if action == Action::Bind {
            prop_assert_eq!(&state.at_staging, &AtStaging::Staged);
            prop_assert_eq!(target, TargetView::Nothing);
            prop_assert!(!broken);
            prop_assert!(!single || state.published_at.is_none());
        }
    }

    #[test]
    fn a_lease_is_released_only_where_staging_took_it_and_nothing_of_the_node_needs_it(
        state in any_state(),
        undo in any::<bool>(),
    ) {
        let goal = if undo { Goal::UndoStage } else { Goal::Unstage };
        if let Action::UnmountAlias { afterwards, leave_foreign } = decide(&state, goal) {
            prop_assert_eq!(leave_foreign, undo);
            prop_assert!(!afterwards.release_lease || state.takes_lease && !state.elsewhere.needs_lease());
            prop_assert!(!afterwards.release_lease || afterwards.unpin, "a pin never outlives the lease");
            prop_assert!(state.published_at.is_none() || state.elsewhere.mounted);
        }
    }

    #[test]
    fn a_goal_that_is_reached_needs_no_action(state in any_state()) {
        if decide(&state, Goal::Stage { node: THIS_NODE }) == Action::Nothing {
            prop_assert_eq!(&state.at_staging, &AtStaging::Staged);
            prop_assert!(state.node.is_none_or(|node| node == THIS_NODE));
        }
        if decide(&state, Goal::Unstage) == Action::Nothing {
            prop_assert_eq!(&state.at_staging, &AtStaging::ReleasePending);
        }
    }
}
