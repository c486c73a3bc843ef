use super::super::origin::{KnownDevices, Ownership};
use super::*;
use host_fs::mount::MountTable;
use host_fs::mount::layers_at;
use host_fs::mount::testing::{LoopDevice, bind, in_own_namespace, run, tmpfs_named};
use rustix::mount::{MountFlags as Ms, mount, mount_remount};
use std::path::Path;

fn owns(origin: &Origin, mount: &Mount) -> bool {
    origin.ownership(mount, KnownDevices::default(), file_system_id) == Ownership::Ours
}

/// A dataset as Flocker mounts it, and a staging path.
struct Bench {
    aliases: Aliases,
    dataset_id: Uuid,
    flocker: PathBuf,
    staging: PathBuf,
}

impl Bench {
    fn new(scratch: &Path) -> Bench {
        // A file system on which device nodes work.
        mount("scratch", scratch, "tmpfs", Ms::empty(), None).unwrap();
        let staging = scratch.join("staging");
        std::fs::create_dir(&staging).unwrap();
        Bench {
            aliases: Aliases::new(DeviceNodes::new(scratch.join("nodes")), Binder::detached()),
            dataset_id: Uuid::new_v4(),
            flocker: scratch.join("flocker"),
            staging,
        }
    }

    fn flocker(&self) -> Mount {
        layers_at(&self.flocker).unwrap().pop().unwrap()
    }

    fn mount(&self) -> Result<Mount, AliasError> {
        self.mount_of(&self.flocker())
    }

    fn mount_of(&self, flocker: &Mount) -> Result<Mount, AliasError> {
        let origin = self.aliases.origin(self.dataset_id, flocker);
        let owned = |mount: &Mount| owns(&origin, mount);
        self.aliases
            .mount(self.dataset_id, &origin, flocker, &self.staging, owned)
    }

    fn unmount(&self) -> Result<(), UnmountError> {
        let origin = self.aliases.origin(self.dataset_id, &self.flocker());
        let owned = |mount: &Mount| owns(&origin, mount);
        Aliases::unmount(self.dataset_id, &self.staging, owned, Patience::default())?;
        host_fs::remove_directory(&alias_path(&self.staging, self.dataset_id)).unwrap();
        Ok(())
    }

    fn staged(&self) -> usize {
        std::fs::read_dir(&self.staging).unwrap().count()
    }
}

fn with_device(test: fn(&Bench, &LoopDevice)) {
    in_own_namespace(move |scratch| {
        let bench = Bench::new(scratch);
        let device = LoopDevice::new();
        device.mount(&bench.flocker);
        test(&bench, &device);
    });
}

#[test]
fn the_volume_is_the_same_under_another_name() {
    with_device(|bench, device| {
        let alias = bench.mount().unwrap();
        let node = bench.aliases.nodes().path(bench.dataset_id);
        assert_eq!(
            (alias.device, Path::new(&alias.source)),
            (device.device, node.as_path())
        );
        std::fs::write(alias.point.join("file"), "data").unwrap();
        assert_eq!(std::fs::read(bench.flocker.join("file")).unwrap(), b"data");
        let table = MountTable::read().unwrap();
        assert_eq!(
            table.last_point_of(device.path.as_os_str()),
            Some(bench.flocker.as_path())
        );
    });
}

#[test]
fn flockers_unmount_by_device_finds_flockers_mount() {
    with_device(|bench, device| {
        let alias = bench.mount().unwrap();
        run("umount", &[device.path.to_str().unwrap()]);
        assert!(layers_at(&bench.flocker).unwrap().is_empty());
        assert_eq!(layers_at(&alias.point).unwrap().len(), 1);
    });
}

#[test]
fn mounting_again_changes_nothing() {
    with_device(|bench, _| {
        let first = bench.mount().unwrap();
        assert_eq!(bench.mount().unwrap(), first);
        assert_eq!(layers_at(&first.point).unwrap().len(), 1);
    });
}

#[test]
fn unmounting_leaves_the_staging_path_empty_and_flockers_mount_alone() {
    with_device(|bench, _| {
        bench.mount().unwrap();
        bench.unmount().unwrap();
        bench.unmount().unwrap();
        let node = bench.aliases.nodes().path(bench.dataset_id);
        bench.aliases.forget_device(bench.dataset_id, &node).unwrap();
        assert_eq!(bench.staged(), 0);
        assert_eq!(layers_at(&bench.flocker).unwrap().len(), 1);
    });
}

#[test]
fn a_read_only_file_system_is_refused_and_no_mount_remains() {
    with_device(|bench, _| {
        mount_remount(&bench.flocker, Ms::RDONLY, "").unwrap();
        let error = bench.mount().unwrap_err();
        assert!(matches!(error, AliasError::ReadOnly(_)), "{error}");
        assert_eq!(bench.staged(), 0);
    });
}

#[test]
fn a_part_of_a_device_is_refused_and_no_mount_remains() {
    with_device(|bench, _| {
        let part = bench.flocker.with_extension("part");
        std::fs::create_dir(bench.flocker.join("directory")).unwrap();
        bind(&bench.flocker.join("directory"), &part);
        let part = layers_at(&part).unwrap().pop().unwrap();
        let error = bench.mount_of(&part).unwrap_err();
        assert!(matches!(error, AliasError::Partial(_)), "{error}");
        assert_eq!(bench.staged(), 0);
    });
}

#[test]
fn a_device_that_no_longer_exists_is_an_error_that_names_it_and_leaves_no_mount() {
    with_device(|bench, _| {
        let mut flocker = bench.flocker();
        flocker.device = Device { major: 60, minor: 0 };
        let error = bench.mount_of(&flocker).unwrap_err();
        assert!(error.to_string().contains("device 60:0"), "{error}");
        assert_eq!(bench.staged(), 0);
    });
}

#[test]
fn another_mount_at_the_alias_is_named_and_stays() {
    with_device(|bench, _| {
        let path = alias_path(&bench.staging, bench.dataset_id);
        tmpfs_named("theirs", &path);
        let error = bench.mount().unwrap_err();
        assert!(
            matches!(&error, AliasError::Occupied { found, .. } if found.source == "theirs"),
            "{error}"
        );
        assert_eq!(layers_at(&path).unwrap().len(), 1);
        assert!(matches!(bench.unmount(), Err(UnmountError::Foreign { .. })));
    });
}

#[test]
fn a_file_at_the_alias_is_an_error_and_stays() {
    with_device(|bench, _| {
        let path = alias_path(&bench.staging, bench.dataset_id);
        std::fs::write(&path, "theirs").unwrap();
        assert!(matches!(bench.mount(), Err(AliasError::Target { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
    });
}

#[test]
fn a_file_system_without_a_block_device_is_bound() {
    in_own_namespace(|scratch| {
        let bench = Bench::new(scratch);
        tmpfs_named("pool/dataset", &bench.flocker);
        let alias = bench.mount().unwrap();
        assert_eq!(
            (alias.device, alias.source),
            (bench.flocker().device, "pool/dataset".into())
        );
        bench.unmount().unwrap();
        assert_eq!((bench.staged(), layers_at(&bench.flocker).unwrap().len()), (0, 1));
        assert!(!scratch.join("nodes").exists());
    });
}
