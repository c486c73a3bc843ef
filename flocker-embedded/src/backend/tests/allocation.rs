//! What space a volume takes and gives back, and how it is attached.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::super::loop_device::{attach_to, is_direct, remove_if_refusing};
use super::*;
use crate::options::{Allocation, Io};

/// Enough for several groups of blocks.
const LARGE: u64 = 300 << 20;

struct Volume {
    fixture: Fixture,
    dataset: Uuid,
    device: PathBuf,
}

impl Drop for Volume {
    fn drop(&mut self) {
        let path = self.fixture.backend.volumes().path(self.dataset);
        if let Ok(Some(attached)) = AttachedDevice::open(&self.device, &path) {
            attached.clear().ok();
        }
    }
}

impl Volume {
    fn new(allocation: Allocation, io: Io) -> Self {
        let mut fixture = Fixture::new();
        let storage = StorageOptions {
            capacity: Some(1 << 30),
            allocation,
            io,
        };
        let data_dir = fixture.directory.path().join("data");
        fs::create_dir(&data_dir).unwrap();
        let data_dir = DataDir::claim(&data_dir).unwrap();
        data_dir.make_volumes().unwrap();
        fixture.backend = Backend::open(Arc::new(data_dir), storage, false).unwrap();
        let dataset = Uuid::new_v4();
        fixture.backend.volumes().create(dataset, LARGE).unwrap();
        fixture.attach(dataset, ANY).unwrap();
        let device = fixture.backend.devices()[&dataset].clone();
        fixture.backend.make_file_system(dataset, &device).unwrap();
        Self {
            fixture,
            dataset,
            device,
        }
    }

    /// The bytes that the backing file occupies.
    fn occupied(&self) -> u64 {
        let path = self.fixture.backend.volumes().path(self.dataset);
        fs::metadata(path).unwrap().blocks() * 512
    }

    /// Mounts the volume, and returns where.
    fn mount(&self) -> PathBuf {
        let (backend, node) = (&self.fixture.backend, &self.fixture.node);
        backend.mount(self.dataset, &self.device, node).unwrap();
        node.mount_path(self.dataset)
    }

    fn queue(&self, attribute: &str) -> u64 {
        let name = self.device.file_name().unwrap();
        let path = Path::new("/sys/block").join(name).join("queue").join(attribute);
        fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }
}

/// Writes a file, deletes it, and asks the file system to give its blocks back. Returns whether it could.
fn write_delete_and_trim(mount: &Path, size: usize) -> bool {
    let free = || rustix::fs::statvfs(mount).unwrap().f_bfree;
    let before = free();
    let path = mount.join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(&vec![7; size]).unwrap();
    file.sync_all().unwrap();
    drop(file);
    fs::remove_file(path).unwrap();
    // A process that another test begins has a copy of the descriptor until it executes its program.
    let blocks = (size / 4096) as u64;
    while free() + blocks / 2 < before {
        std::thread::yield_now();
    }
    // The journal makes the blocks free some time after the commit for which syncfs waits, and before it begins the next one.
    // What becomes free while the kernel trims its group may be left out, then and later.
    for _ in 0..2 {
        File::create(mount.join("committed")).unwrap();
        rustix::fs::syncfs(File::open(mount).unwrap()).unwrap();
    }
    Command::new("fstrim")
        .arg(mount)
        .output()
        .unwrap()
        .status
        .success()
}

/// Runs a test body in a thread whose mounts no other process sees.
fn in_own_namespace(body: impl FnOnce() + Send + 'static) {
    let run = || {
        namespace::enter_own_namespace();
        body();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_thick_volume_keeps_its_space_whatever_is_made_written_deleted_and_trimmed() {
    in_own_namespace(|| {
        let volume = Volume::new(Allocation::Thick, Io::Direct);
        assert!(volume.occupied() >= LARGE, "after mkfs: {}", volume.occupied());
        let mount = volume.mount();
        for round in 1..=3 {
            assert!(!write_delete_and_trim(&mount, 64 << 20), "nothing is given back");
            assert!(volume.occupied() >= LARGE, "round {round}: {}", volume.occupied());
        }
        unmount(mount);
        assert!(volume.occupied() >= LARGE);
    });
}

#[test]
fn a_thin_volume_takes_what_is_written_and_gives_back_what_is_trimmed() {
    in_own_namespace(|| {
        let volume = Volume::new(Allocation::Thin, Io::Direct);
        let mount = volume.mount();
        rustix::fs::syncfs(File::open(&mount).unwrap()).unwrap();
        let empty = volume.occupied();
        assert!(empty < LARGE / 4, "{empty}");
        assert!(write_delete_and_trim(&mount, 64 << 20));
        let after = volume.occupied();
        assert!(after < empty + (32 << 20), "{empty} before, {after} after");
        unmount(mount);
    });
}

#[test]
fn a_device_that_refused_discards_is_not_left_to_others() {
    let volume = Volume::new(Allocation::Thick, Io::Direct);
    assert_eq!(volume.queue("discard_max_bytes"), 0);
    // Another process opens each device that it looks at, and holds this one for as long.
    let detached = (0..1000).any(|_| {
        volume
            .fixture
            .backend
            .detach(volume.dataset, &volume.device)
            .is_ok()
    });
    assert!(detached);
    let gone_or_new = Path::new("/sys/block").join(volume.device.file_name().unwrap());
    let limits = || {
        ["discard_max_bytes", "discard_max_hw_bytes"].map(|attribute| {
            let read = fs::read_to_string(gone_or_new.join("queue").join(attribute));
            read.map_or(0, |limit| limit.trim().parse::<u64>().unwrap())
        })
    };
    // It stays while another process holds it; then the next attachment that finds it removes it.
    let accepts = (0..1000).any(|attempt| {
        if attempt > 0 {
            remove_if_refusing(&volume.device);
        }
        let [limit, possible] = limits();
        limit > 0 || possible == 0
    });
    assert!(accepts, "{:?}", limits());
}

#[test]
fn a_device_that_a_killed_process_left_refusing_is_replaced_before_its_next_use() {
    let thick = Volume::new(Allocation::Thick, Io::Direct);
    let path = thick.fixture.backend.volumes().path(thick.dataset);
    // Without the backend, so that the device stays as it is.
    free(&thick.device, &path);
    for _ in 0..4 {
        let thin = Volume::new(Allocation::Thin, Io::Direct);
        assert!(thin.queue("discard_max_bytes") > 0, "{}", thin.device.display());
    }
}

#[test]
fn a_device_that_is_found_at_a_start_refuses_discards_too() {
    let volume = Volume::new(Allocation::Thin, Io::Direct);
    assert!(volume.queue("discard_max_bytes") > 0);
    let directory = volume.fixture.directory.path().join("again");
    fs::create_dir(&directory).unwrap();
    let data_dir = DataDir::claim(&directory).unwrap();
    data_dir.make_volumes().unwrap();
    let file = volume.fixture.backend.volumes().path(volume.dataset);
    fs::hard_link(&file, directory.join("volumes").join(volume.dataset.to_string())).unwrap();
    let storage = StorageOptions {
        allocation: Allocation::Thick,
        ..StorageOptions::THIN
    };
    let started = Backend::open(Arc::new(data_dir), storage, false).unwrap();
    assert_eq!(started.devices()[&volume.dataset], volume.device);
    assert_eq!(volume.queue("discard_max_bytes"), 0);
    started.detach(volume.dataset, &volume.device).ok();
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_made_of_it() {
    in_own_namespace(|| {
        let directory = tempfile::tempdir().unwrap();
        rustix::mount::mount(
            "tmpfs",
            directory.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(c"size=8m"),
        )
        .unwrap();
        let data_dir = DataDir::claim(directory.path()).unwrap();
        data_dir.make_volumes().unwrap();
        let storage = StorageOptions {
            capacity: Some(1 << 30),
            allocation: Allocation::Thick,
            io: Io::Direct,
        };
        let backend = Backend::open(Arc::new(data_dir), storage, false).unwrap();
        let dataset = Uuid::new_v4();
        let error = backend.volumes().create(dataset, SIZE).unwrap_err();
        assert!(
            matches!(error, StepError::NoSpace { size: SIZE, .. }),
            "{error:?}"
        );
        assert_eq!(backend.volumes().stage(dataset), None);
        let left = fs::read_dir(directory.path().join("volumes")).unwrap().count();
        assert_eq!(left, 0);
        // With less to take it is made.
        backend.volumes().create(dataset, 4 << 20).unwrap();
    });
}

#[test]
fn reads_and_writes_bypass_the_page_cache_unless_they_are_to_use_it() {
    for io in [Io::Direct, Io::Buffered] {
        let volume = Volume::new(Allocation::Thin, io);
        let direct = is_direct(&volume.device).unwrap();
        let path = volume.fixture.backend.volumes().path(volume.dataset);
        let can = File::options()
            .read(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(path)
            .is_ok();
        assert_eq!(direct, io == Io::Direct && can, "{io:?}");
        assert!(volume.queue("logical_block_size") <= 4096);
    }
}

#[test]
fn a_volume_with_small_blocks_gets_a_device_with_blocks_that_are_not_larger() {
    in_own_namespace(|| {
        let mut volume = Volume::new(Allocation::Thin, Io::Direct);
        let path = volume.fixture.backend.volumes().path(volume.dataset);
        free(&volume.device, &path);
        // As earlier versions made it.
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-b", "1024"])
            .arg(&path)
            .status();
        assert!(made.unwrap().success());
        volume.fixture.attach(volume.dataset, ANY).unwrap();
        volume.device = volume.fixture.backend.devices()[&volume.dataset].clone();
        assert!(volume.queue("logical_block_size") <= 1024);
        unmount(volume.mount());
    });
}

#[test]
fn a_device_that_was_read_only_is_writable_with_the_next_file() {
    // Another test may be faster to take the device, or remove it; then the next one is made read-only.
    let taken_again = (0..20).find_map(|_| {
        let volume = Volume::new(Allocation::Thin, Io::Direct);
        let path = volume.fixture.backend.volumes().path(volume.dataset);
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let is_taken = (0..100).any(|_| {
            let Ok(Some(device)) = AttachedDevice::open(&volume.device, &path) else {
                return attach_to(&volume.device, &file, BUFFERED).is_ok_and(|attached| attached);
            };
            let set = Command::new("blockdev")
                .arg("--setro")
                .arg(&volume.device)
                .status();
            assert!(set.unwrap().success());
            device.clear().unwrap();
            false
        });
        is_taken.then_some(volume)
    });
    let volume = taken_again.expect("a device is attached again");
    let mut device = File::options().write(true).open(&volume.device).unwrap();
    device.write_all(&[0; 512]).unwrap();
}
