use super::super::table::MountTable;
use super::super::testing::{PeerNamespace, in_own_namespace, share, tmpfs_named};
use super::*;
use rustix::mount::{MountAttrFlags as Attr, MountFlags as Ms, mount_remount};
use std::io::ErrorKind;

struct Bench {
    source: Mount,
    target: PathBuf,
    other: PathBuf,
}

/// The attributes of a read-only mount that sets and clears one of each kind.
fn read_only() -> AttributeChange {
    AttributeChange {
        set: Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NOATIME,
        clear: Attr::MOUNT_ATTR__ATIME,
    }
}

/// Runs a test once for each way to bind, with a volume that holds one file.
fn by_every_method(test: fn(&Binder, &Bench)) {
    for work in [None, Some("work")] {
        in_own_namespace(move |scratch| {
            tmpfs_named("host", scratch);
            let volume = scratch.join("volume");
            tmpfs_named("/dev/flocker-csi/1", &volume);
            std::fs::write(volume.join("file"), "data").unwrap();
            let (target, other) = (scratch.join("target"), scratch.join("other"));
            std::fs::create_dir(&target).unwrap();
            std::fs::create_dir(&other).unwrap();
            let binder = work.map_or_else(Binder::detached, |work| Binder::moved(&scratch.join(work)));
            let source = layers_at(&volume).unwrap().pop().unwrap();
            test(
                &binder,
                &Bench {
                    source,
                    target,
                    other,
                },
            );
        });
    }
}

#[test]
fn this_kernel_has_the_better_way() {
    assert!(matches!(
        Binder::for_this_kernel(Path::new("/unused")).method,
        Method::Detached
    ));
}

#[test]
fn a_volume_appears_writable_and_keeps_the_name_of_its_source() {
    by_every_method(|binder, bench| {
        let mount = binder
            .bind(&bench.source, &bench.target, AttributeChange::default())
            .unwrap();
        assert_eq!((&mount.source, mount.read_only()), (&bench.source.source, false));
        std::fs::write(bench.target.join("new"), "x").unwrap();
        assert!(bench.source.point.join("new").exists());
    });
}

#[test]
fn a_read_only_volume_refuses_writes_while_others_go_on_writing() {
    by_every_method(|binder, bench| {
        let mount = binder.bind(&bench.source, &bench.target, read_only()).unwrap();
        assert!(read_only().describes(&mount));
        binder
            .bind(&bench.source, &bench.other, AttributeChange::default())
            .unwrap();
        let refused = std::fs::write(bench.target.join("file"), "x").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
        std::fs::write(bench.other.join("file"), "x").unwrap();
    });
}

#[test]
fn restrictions_of_the_source_are_inherited() {
    by_every_method(|binder, bench| {
        let restricted = Ms::BIND | Ms::NOSUID | Ms::NODEV | Ms::NOEXEC | Ms::NODIRATIME | Ms::STRICTATIME;
        mount_remount(&bench.source.point, restricted | Ms::NOSYMFOLLOW, "").unwrap();
        let source = layers_at(&bench.source.point).unwrap().pop().unwrap();
        let mount = binder
            .bind(
                &source,
                &bench.target,
                AttributeChange {
                    set: Attr::MOUNT_ATTR_RDONLY,
                    clear: Attr::empty(),
                },
            )
            .unwrap();
        assert_eq!(mount.attributes, source.attributes | Attr::MOUNT_ATTR_RDONLY);
    });
}

#[test]
fn every_flag_takes_effect() {
    by_every_method(|binder, bench| {
        for (set, clear) in [
            (Attr::MOUNT_ATTR_RDONLY, Attr::empty()),
            (Attr::empty(), Attr::MOUNT_ATTR_RDONLY),
            (Attr::MOUNT_ATTR_NOATIME, Attr::MOUNT_ATTR__ATIME),
            (Attr::MOUNT_ATTR_RELATIME, Attr::MOUNT_ATTR__ATIME),
            (Attr::MOUNT_ATTR_STRICTATIME, Attr::MOUNT_ATTR__ATIME),
            (Attr::MOUNT_ATTR_NODIRATIME, Attr::empty()),
            (Attr::MOUNT_ATTR_NOSUID, Attr::empty()),
            (Attr::MOUNT_ATTR_NODEV, Attr::empty()),
            (Attr::MOUNT_ATTR_NOEXEC, Attr::empty()),
        ] {
            let change = AttributeChange { set, clear };
            let mount = binder.bind(&bench.source, &bench.target, change).unwrap();
            assert!(change.describes(&mount), "{change:?}: {:?}", mount.attributes);
            unmount_top(&bench.target, Patience::default()).unwrap();
        }
    });
}

#[test]
fn other_namespaces_see_it_with_the_same_flags() {
    by_every_method(|binder, bench| {
        share(bench.target.parent().unwrap());
        let peer = PeerNamespace::new();
        binder.bind(&bench.source, &bench.target, read_only()).unwrap();
        let table = peer.table();
        let layers = table.layers_at(&bench.target);
        assert_eq!(layers.len(), 1);
        assert!(read_only().describes(layers[0]), "{:?}", layers[0].attributes);
        let own = MountTable::read().unwrap().mounts().len();
        assert_eq!(table.mounts().len(), own, "nothing else has spread");
    });
}

#[test]
fn a_target_in_use_is_refused_and_stays_as_it_is() {
    by_every_method(|binder, bench| {
        tmpfs_named("theirs", &bench.target);
        let error = binder
            .bind(&bench.source, &bench.target, AttributeChange::default())
            .unwrap_err();
        assert!(
            matches!(&error, BindError::Occupied { found, .. } if found.source == "theirs"),
            "{error}"
        );
        assert_eq!(layers_at(&bench.target).unwrap().len(), 1);
    });
}

#[test]
fn a_missing_target_leaves_no_mount() {
    by_every_method(|binder, bench| {
        let before = MountTable::read().unwrap();
        assert!(
            binder
                .bind(&bench.source, &bench.target.join("missing"), read_only())
                .is_err()
        );
        assert_eq!(MountTable::read().unwrap(), before);
    });
}

#[test]
fn a_source_that_has_changed_is_noticed_before_anything_is_mounted() {
    by_every_method(|binder, bench| {
        tmpfs_named("cover", &bench.source.point);
        let before = MountTable::read().unwrap();
        let error = binder
            .bind(&bench.source, &bench.target, AttributeChange::default())
            .unwrap_err();
        assert!(
            matches!(
                error,
                BindError::Source {
                    source: OpenError::Replaced { .. },
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(MountTable::read().unwrap(), before);
    });
}

#[test]
fn the_volume_can_be_unmounted_right_after() {
    by_every_method(|binder, bench| {
        for _ in 0..50 {
            binder.bind(&bench.source, &bench.target, read_only()).unwrap();
            unmount_top(&bench.target, Patience::default()).unwrap();
        }
        assert_eq!(binder.clear_unfinished().unwrap(), 0);
    });
}
