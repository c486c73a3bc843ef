use super::super::lookup::layers_at;
use super::super::table::MountTable;
use super::super::testing::{PeerNamespace, in_own_namespace, share, tmpfs_named};
use super::super::unmount::unmount_owned;
use super::*;
use rustix::mount::{MountAttrFlags as Attr, MountFlags as Ms, mount_remount};
use std::io::ErrorKind;

struct Fixture {
    source: MountHandle,
    target: PathBuf,
    other: PathBuf,
}

fn at(path: &Path) -> Target {
    Target::open(path).unwrap()
}

/// The attributes of a read-only mount that sets and clears one of each kind.
fn read_only() -> AttributeChange {
    AttributeChange {
        set: Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NOATIME,
        clear: Attr::MOUNT_ATTR__ATIME,
    }
}

/// Runs a test once for each way to bind, with a volume that holds one file.
fn by_every_method(test: fn(&Binder, &Fixture)) {
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
            let source = Target::open(&volume).unwrap().open_mount().unwrap().unwrap();
            test(
                &binder,
                &Fixture {
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
    by_every_method(|binder, fixture| {
        let mount = binder
            .bind(&fixture.source, &at(&fixture.target), AttributeChange::default())
            .unwrap();
        assert_eq!(
            (&mount.source, mount.read_only()),
            (&fixture.source.mount().source, false)
        );
        std::fs::write(fixture.target.join("new"), "x").unwrap();
        assert!(fixture.source.mount().point.join("new").exists());
    });
}

#[test]
fn a_read_only_volume_refuses_writes_while_others_go_on_writing() {
    by_every_method(|binder, fixture| {
        let mount = binder
            .bind(&fixture.source, &at(&fixture.target), read_only())
            .unwrap();
        assert!(read_only().describes(&mount));
        binder
            .bind(&fixture.source, &at(&fixture.other), AttributeChange::default())
            .unwrap();
        let refused = std::fs::write(fixture.target.join("file"), "x").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
        std::fs::write(fixture.other.join("file"), "x").unwrap();
    });
}

#[test]
fn restrictions_of_the_source_are_inherited() {
    by_every_method(|binder, fixture| {
        let restricted = Ms::BIND | Ms::NOSUID | Ms::NODEV | Ms::NOEXEC | Ms::NODIRATIME | Ms::STRICTATIME;
        mount_remount(&fixture.source.mount().point, restricted | Ms::NOSYMFOLLOW, "").unwrap();
        let source = at(&fixture.source.mount().point).open_mount().unwrap().unwrap();
        let mount = binder
            .bind(
                &source,
                &at(&fixture.target),
                AttributeChange {
                    set: Attr::MOUNT_ATTR_RDONLY,
                    clear: Attr::empty(),
                },
            )
            .unwrap();
        assert_eq!(
            mount.attributes,
            source.mount().attributes | Attr::MOUNT_ATTR_RDONLY
        );
    });
}

#[test]
fn every_flag_takes_effect() {
    by_every_method(|binder, fixture| {
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
            let mount = binder
                .bind(&fixture.source, &at(&fixture.target), change)
                .unwrap();
            assert!(change.describes(&mount), "{change:?}: {:?}", mount.attributes);
            unmount_top(&fixture.target, Patience::default()).unwrap();
        }
    });
}

#[test]
fn other_namespaces_see_it_with_the_same_flags() {
    by_every_method(|binder, fixture| {
        share(fixture.target.parent().unwrap());
        let peer = PeerNamespace::new();
        binder
            .bind(&fixture.source, &at(&fixture.target), read_only())
            .unwrap();
        let table = peer.table();
        let layers = table.layers_at(&fixture.target);
        assert_eq!(layers.len(), 1);
        assert!(read_only().describes(layers[0]), "{:?}", layers[0].attributes);
        let own = MountTable::read().unwrap().mounts().len();
        assert_eq!(table.mounts().len(), own, "nothing else has spread");
    });
}

#[test]
fn a_target_in_use_is_refused_and_stays_as_it_is() {
    by_every_method(|binder, fixture| {
        tmpfs_named("theirs", &fixture.target);
        let error = binder
            .bind(&fixture.source, &at(&fixture.target), AttributeChange::default())
            .unwrap_err();
        assert!(
            matches!(&error, BindError::Occupied { found, .. } if found.source == "theirs"),
            "{error}"
        );
        assert_eq!(layers_at(&fixture.target).unwrap().len(), 1);
    });
}

#[test]
fn a_missing_target_leaves_no_mount() {
    by_every_method(|binder, fixture| {
        let before = MountTable::read().unwrap();
        assert!(
            binder
                .bind(&fixture.source, &at(&fixture.target.join("missing")), read_only())
                .is_err()
        );
        assert_eq!(MountTable::read().unwrap(), before);
    });
}

#[test]
fn a_source_that_is_covered_is_bound_all_the_same() {
    by_every_method(|binder, fixture| {
        tmpfs_named("cover", &fixture.source.mount().point);
        let mount = binder
            .bind(&fixture.source, &at(&fixture.target), AttributeChange::default())
            .unwrap();
        assert_eq!(mount.source, fixture.source.mount().source);
    });
}

#[test]
fn a_mount_that_appeared_since_the_target_was_opened_is_not_covered() {
    by_every_method(|binder, fixture| {
        for target in [at(&fixture.target), at(&fixture.target.join("made"))] {
            let made = target.ensure_directory().unwrap();
            tmpfs_named("theirs", target.path());
            let error = binder.bind(&fixture.source, &target, read_only()).unwrap_err();
            assert!(
                matches!(&error, BindError::Occupied { found, .. } if found.source == "theirs"),
                "{made}: {error}"
            );
            assert_eq!(layers_at(target.path()).unwrap().len(), 1);
            unmount_owned(&target, |_| true, Patience::default()).unwrap();
        }
    });
}

#[test]
fn a_target_that_was_swapped_for_a_link_leaves_no_mount() {
    by_every_method(|binder, fixture| {
        let target = at(&fixture.target);
        std::fs::remove_dir(&fixture.target).unwrap();
        std::os::unix::fs::symlink(&fixture.other, &fixture.target).unwrap();
        let before = MountTable::read().unwrap();
        assert!(binder.bind(&fixture.source, &target, read_only()).is_err());
        assert_eq!(MountTable::read().unwrap(), before);
    });
}

#[test]
fn the_volume_can_be_unmounted_right_after() {
    by_every_method(|binder, fixture| {
        for _ in 0..50 {
            binder
                .bind(&fixture.source, &at(&fixture.target), read_only())
                .unwrap();
            unmount_top(&fixture.target, Patience::default()).unwrap();
        }
        assert_eq!(binder.clear_unfinished().unwrap(), 0);
    });
}

#[test]
fn a_mount_in_a_directory_that_was_moved_is_not_left_there() {
    by_every_method(|binder, fixture| {
        let above = fixture.other.join("above");
        std::fs::create_dir_all(above.join("target")).unwrap();
        let target = at(&above.join("target"));
        std::fs::rename(&above, fixture.other.join("moved")).unwrap();
        std::fs::create_dir_all(above.join("target")).unwrap();
        let error = binder
            .bind(&fixture.source, &target, AttributeChange::default())
            .unwrap_err();
        assert!(
            matches!(&error, BindError::Unverified { found: Some(found), .. } if found.point.ends_with("moved/target")),
            "{error}"
        );
        let table = MountTable::read().unwrap();
        let left = table
            .mounts()
            .iter()
            .filter(|mount| mount.point.starts_with(&fixture.other));
        assert_eq!(left.count(), 0);
    });
}
