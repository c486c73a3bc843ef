use super::super::table::MountTable;
use super::super::testing::{PeerNamespace, in_own_namespace, share, tmpfs_named};
use super::*;
use rustix::mount::{MountFlags as Ms, mount_remount};
use std::io::ErrorKind;

const RO: &[&str] = &["ro", "nosuid", "noatime"];

struct Bench {
    source: Mount,
    target: PathBuf,
    other: PathBuf,
}

fn flags(flags: &[&str]) -> MountFlags {
    MountFlags::parse(flags, false).unwrap()
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
            .bind(&bench.source, &bench.target, MountFlags::default())
            .unwrap();
        assert_eq!((&mount.source, mount.read_only()), (&bench.source.source, false));
        std::fs::write(bench.target.join("new"), "x").unwrap();
        assert!(bench.source.point.join("new").exists());
    });
}

#[test]
fn a_read_only_volume_refuses_writes_while_others_go_on_writing() {
    by_every_method(|binder, bench| {
        let mount = binder.bind(&bench.source, &bench.target, flags(RO)).unwrap();
        assert!(mount.satisfies(flags(RO)));
        binder
            .bind(&bench.source, &bench.other, MountFlags::default())
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
        let mount = binder.bind(&source, &bench.target, flags(&["ro"])).unwrap();
        assert_eq!(
            mount.attributes,
            source.attributes | rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY
        );
    });
}

#[test]
fn every_flag_takes_effect() {
    by_every_method(|binder, bench| {
        for name in [
            "ro",
            "rw",
            "noatime",
            "relatime",
            "strictatime",
            "nodiratime",
            "nosuid",
            "nodev",
            "noexec",
        ] {
            let mount = binder.bind(&bench.source, &bench.target, flags(&[name])).unwrap();
            assert!(mount.satisfies(flags(&[name])), "{name}: {:?}", mount.attributes);
            unmount_top(&bench.target, Patience::default()).unwrap();
        }
    });
}

#[test]
fn other_namespaces_see_it_with_the_same_flags() {
    by_every_method(|binder, bench| {
        share(bench.target.parent().unwrap());
        let peer = PeerNamespace::new();
        binder.bind(&bench.source, &bench.target, flags(RO)).unwrap();
        let table = peer.table();
        let layers = table.layers_at(&bench.target);
        assert_eq!(layers.len(), 1);
        assert!(layers[0].satisfies(flags(RO)), "{:?}", layers[0].attributes);
        let own = MountTable::read().unwrap().mounts().len();
        assert_eq!(table.mounts().len(), own, "nothing else has spread");
    });
}

#[test]
fn a_target_in_use_is_refused_and_stays_as_it_is() {
    by_every_method(|binder, bench| {
        tmpfs_named("theirs", &bench.target);
        let error = binder
            .bind(&bench.source, &bench.target, MountFlags::default())
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
                .bind(&bench.source, &bench.target.join("missing"), flags(RO))
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
            .bind(&bench.source, &bench.target, MountFlags::default())
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
            binder.bind(&bench.source, &bench.target, flags(RO)).unwrap();
            unmount_top(&bench.target, Patience::default()).unwrap();
        }
        assert_eq!(binder.clear_unfinished().unwrap(), 0);
    });
}
