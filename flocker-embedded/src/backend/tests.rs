//! What the backend does when a loop device, or a backing file, has changed.

use host_fs::mount::testing::unmount;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::mount::MountFlags;
use tempfile::{NamedTempFile, TempDir};
use uuid::Uuid;

use super::content::{Expected, file_system};
use super::error::StepError;
use super::loop_device::{AttachedDevice, Attachment, attach, has_file};
use super::mounting::is_mounted;
use super::program::Programs;
use super::storage::{Backend, StorageOptions};
use super::{Condition, Discovery};
use crate::data_dir::DataDir;
use crate::namespace;
use crate::options::NodeInfo;
use crate::store::{Configuration, Dataset, Storage, StorageRecords};

mod allocation;

const SIZE: u64 = 16 << 20;

const BUFFERED: Attachment = Attachment {
    block_size: 512,
    direct: false,
};

const ANY: Expected = Expected {
    size: SIZE,
    file_system: None,
};

/// The storage of one node, and a loop device of another program.
struct Fixture {
    directory: TempDir,
    backend: Backend,
    node: NodeInfo,
    foreign_file: NamedTempFile,
    foreign_device: PathBuf,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // A failed test must not panic again here.
        if let Ok(Some(attached)) = AttachedDevice::open(&self.foreign_device, self.foreign_file.path()) {
            attached.clear().ok();
        }
    }
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let backend = open(directory.path());
        let node = NodeInfo {
            number: 1,
            uuid: Uuid::new_v4(),
            mount_root: directory.path().join("node-1"),
        };
        let foreign_file = NamedTempFile::new().unwrap();
        foreign_file.as_file().set_len(SIZE).unwrap();
        let foreign_device = attach(&foreign_file.reopen().unwrap(), BUFFERED).unwrap();
        Self {
            directory,
            backend,
            node,
            foreign_file,
            foreign_device,
        }
    }

    /// Creates a volume and attaches it.
    fn attached(&self) -> (Uuid, PathBuf) {
        let dataset = Uuid::new_v4();
        self.backend.volumes().create(dataset, SIZE).unwrap();
        let outcome = self.attach(dataset, ANY);
        assert!(outcome.is_ok(), "{outcome:?}");
        let device = self.backend.devices()[&dataset].clone();
        (dataset, device)
    }

    /// Creates a volume, attaches it and formats it.
    fn formatted(&self) -> (Uuid, PathBuf, Uuid) {
        let (dataset, device) = self.attached();
        let file_system = self.backend.make_file_system(dataset, &device).unwrap();
        (dataset, device, file_system)
    }

    fn attach(&self, dataset: Uuid, expected: Expected) -> Result<(), StepError> {
        let wanted = BTreeMap::from([(dataset, expected)]);
        let outcomes = self.backend.attach(&wanted, |_| Ok(())).unwrap();
        outcomes.into_iter().next().unwrap().1
    }

    fn detach(&self, dataset: Uuid, device: &Path) {
        // Other processes open all devices to examine them.
        while let Err(error) = self.backend.detach(dataset, device) {
            assert!(error.is_transient(), "{error}");
            std::thread::yield_now();
        }
    }

    fn foreign_device_is_attached(&self) -> bool {
        has_file(&self.foreign_device, self.foreign_file.path()).unwrap()
    }

    fn discover(&self, owned: &[Uuid]) -> Discovery {
        let records = StorageRecords {
            attachments: owned.iter().map(|dataset| (*dataset, self.node.uuid)).collect(),
            ..StorageRecords::default()
        };
        self.discover_configured(&[], records)
    }

    /// Discovers with datasets that are configured on this node.
    fn discover_configured(&self, datasets: &[Uuid], records: StorageRecords) -> Discovery {
        let dataset = Dataset {
            primary: self.node.uuid,
            deleted: false,
            maximum_size: Some(crate::store::Size::Bytes(SIZE)),
            metadata: BTreeMap::new(),
        };
        let configuration = Configuration {
            datasets: datasets.iter().map(|id| (*id, dataset.clone().into())).collect(),
            ..Configuration::default()
        };
        self.backend
            .discover(&self.node, &configuration, || records, &BTreeSet::new())
            .unwrap()
    }
}

fn open(directory: &Path) -> Backend {
    let data_dir = DataDir::claim(directory).unwrap();
    data_dir.make_volumes().unwrap();
    let storage = StorageOptions {
        capacity: Some(1 << 30),
        ..StorageOptions::THIN
    };
    Backend::open(Arc::new(data_dir), storage, false).unwrap()
}

fn free(device: &Path, file: &Path) {
    if let Some(attached) = AttachedDevice::open(device, file).unwrap() {
        attached.clear().unwrap();
    }
}

#[test]
fn detaching_a_dataset_leaves_a_device_alone_that_has_another_file() {
    let fixture = Fixture::new();
    let (dataset, device) = fixture.attached();
    let outcome = fixture.backend.detach(dataset, &fixture.foreign_device);
    assert!(fixture.foreign_device_is_attached());
    assert!(outcome.is_ok(), "{outcome:?}");
    free(&device, &fixture.backend.volumes().path(dataset));
}

#[test]
fn a_file_system_is_never_made_on_a_device_that_has_another_file() {
    const CONTENT: &[u8] = b"of another program";
    let fixture = Fixture::new();
    let (dataset, device) = fixture.attached();
    fixture
        .foreign_file
        .as_file()
        .write_all_at(CONTENT, 1 << 12)
        .unwrap();
    let outcome = fixture.backend.make_file_system(dataset, &fixture.foreign_device);
    assert!(matches!(outcome, Err(StepError::NotAttached(_))), "{outcome:?}");
    let foreign = File::open(&fixture.foreign_device).unwrap();
    file_system(&foreign, &fixture.foreign_device).unwrap_err();
    let mut content = [0; CONTENT.len()];
    fixture
        .foreign_file
        .as_file()
        .read_exact_at(&mut content, 1 << 12)
        .unwrap();
    assert_eq!(content, CONTENT);
    free(&device, &fixture.backend.volumes().path(dataset));
}

#[test]
fn a_device_that_has_another_file_is_neither_mounted_nor_unmounted() {
    let run = || {
        namespace::enter_own_namespace();
        let fixture = Fixture::new();
        let (dataset, device) = fixture.attached();
        let programs = Programs::find().unwrap();
        programs.make_file_system(&fixture.foreign_device, false).unwrap();
        let outcome = fixture
            .backend
            .mount(dataset, &fixture.foreign_device, &fixture.node);
        assert!(matches!(outcome, Err(StepError::NotAttached(_))), "{outcome:?}");
        assert!(!is_mounted(&fixture.node.mount_path(dataset)).unwrap());

        let target = fixture.directory.path().join("foreign");
        fs::create_dir(&target).unwrap();
        rustix::mount::mount(
            &fixture.foreign_device,
            &target,
            "ext4",
            MountFlags::empty(),
            None,
        )
        .unwrap();
        let outcome = fixture.backend.unmount(dataset, &fixture.foreign_device);
        assert!(matches!(outcome, Err(StepError::NotAttached(_))), "{outcome:?}");
        assert!(is_mounted(&target).unwrap());
        unmount(&target);
        free(&device, &fixture.backend.volumes().path(dataset));
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_dataset_whose_device_cannot_be_examined_leaves_the_others_visible() {
    let fixture = Fixture::new();
    let ((broken, device), (other, other_device)) = (fixture.attached(), fixture.attached());
    let path = fixture.backend.volumes().path(broken);
    let moved = fixture.directory.path().join("moved");
    fs::rename(&path, &moved).unwrap();

    let Discovery { seen, failures } = fixture.discover(&[broken, other]);
    assert_eq!(seen[&broken].condition, Condition::Unexamined);
    assert_eq!(
        seen[&other].condition,
        Condition::Unformatted(other_device.clone())
    );
    let [(dataset, error)] = failures.as_slice() else {
        panic!("not one failure: {failures:?}");
    };
    let text = crate::error::chain(error);
    assert_eq!(*dataset, broken);
    assert!(text.contains(path.to_str().unwrap()), "{text}");

    fs::rename(&moved, &path).unwrap();
    let Discovery { seen, failures } = fixture.discover(&[broken, other]);
    assert_eq!(seen[&broken].condition, Condition::Unformatted(device.clone()));
    assert!(failures.is_empty(), "{failures:?}");
    free(&device, &path);
    free(&other_device, &fixture.backend.volumes().path(other));
}

#[test]
fn a_dataset_whose_device_is_unknown_at_the_start_holds_back_itself_alone() {
    let directory = tempfile::tempdir().unwrap();
    let volumes = directory.path().join("volumes");
    fs::create_dir(&volumes).unwrap();
    let (broken, other) = (Uuid::new_v4(), Uuid::new_v4());
    symlink("/nowhere", volumes.join(broken.to_string())).unwrap();
    let backend = open(directory.path());
    backend.volumes().create(other, SIZE).unwrap();
    let outcomes: BTreeMap<_, _> = backend
        .attach(&BTreeMap::from([(broken, ANY), (other, ANY)]), |_| Ok(()))
        .unwrap()
        .into_iter()
        .collect();
    assert!(
        outcomes[&broken].is_err() && outcomes[&other].is_ok(),
        "{outcomes:?}"
    );
    let device = backend.devices()[&other].clone();
    free(&device, &backend.volumes().path(other));
}

#[test]
fn what_was_formatted_is_never_formatted_again_whatever_it_has_become() {
    let fixture = Fixture::new();
    let (dataset, device, file_system) = fixture.formatted();
    let again = fixture.backend.make_file_system(dataset, &device);
    assert!(matches!(again, Err(StepError::NotFormatting(_))), "{again:?}");
    fixture.detach(dataset, &device);

    let path = fixture.backend.volumes().path(dataset);
    assert_eq!(path.file_name().unwrap().to_str().unwrap(), dataset.to_string());
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut start = [0; 4096];
    file.read_exact_at(&mut start, 0).unwrap();
    let known = Expected {
        file_system: Some(file_system),
        ..ANY
    };
    for (content, text) in [([0; 4096], "4 KiB are zero"), ([7; 4096], "something else")] {
        file.write_all_at(&content, 0).unwrap();
        let damaged = crate::error::chain(&fixture.attach(dataset, known).unwrap_err());
        assert!(damaged.contains(text), "{damaged}");
        assert!(damaged.contains("e2fsck -b 32768"), "{damaged}");
        let again = fixture.backend.make_file_system(dataset, &device);
        assert!(matches!(again, Err(StepError::NotFormatting(_))), "{again:?}");
    }
    file.write_all_at(&start, 0).unwrap();

    file.set_len(SIZE - 1).unwrap();
    let shortened = fixture.attach(dataset, known);
    assert!(
        matches!(shortened, Err(StepError::Shortened { .. })),
        "{shortened:?}"
    );
    file.set_len(SIZE).unwrap();
    let other = Expected {
        file_system: Some(Uuid::new_v4()),
        ..ANY
    };
    let exchanged = fixture.attach(dataset, other);
    assert!(
        matches!(exchanged, Err(StepError::OtherFileSystem { .. })),
        "{exchanged:?}"
    );
    fixture.attach(dataset, known).unwrap();
    free(&fixture.backend.devices()[&dataset].clone(), &path);
}

#[test]
fn a_missing_volume_is_not_made_again_and_its_return_is_noticed() {
    let fixture = Fixture::new();
    let (dataset, device, file_system) = fixture.formatted();
    fixture.detach(dataset, &device);
    let path = fixture.backend.volumes().path(dataset);
    let elsewhere = fixture.directory.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    let attached = fixture.attach(dataset, ANY);
    assert!(matches!(attached, Err(StepError::Missing { .. })), "{attached:?}");

    let other = Uuid::new_v4();
    let file_system = Some(file_system);
    let records = StorageRecords {
        storage: BTreeMap::from([
            (dataset, Storage::Formatted { file_system }),
            (other, Storage::Formatting),
        ]),
        ..StorageRecords::default()
    };
    let Discovery { seen, failures } = fixture.discover_configured(&[dataset, other], records.clone());
    let failures: BTreeMap<_, _> = failures.into_iter().collect();
    for id in [dataset, other] {
        assert_eq!(seen[&id].condition, Condition::Unavailable);
    }
    let text = failures[&dataset].to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    assert!(
        matches!(failures[&other], StepError::NotMounted { missing: 1, .. }),
        "nothing is made where its file system may not be mounted: {failures:?}"
    );

    // The kernel keeps a removed file as long as a loop device has it.
    fs::rename(&elsewhere, &path).unwrap();
    fixture.discover_configured(&[dataset], records.clone());
    fixture.attach(dataset, ANY).unwrap();
    let device = fixture.backend.devices()[&dataset].clone();
    fs::hard_link(&path, &elsewhere).unwrap();
    fs::remove_file(&path).unwrap();
    fixture.backend.volumes().forget(dataset);
    let failures = fixture.discover_configured(&[dataset], records.clone()).failures;
    let text = failures[0].1.to_string();
    assert!(
        text.contains(&format!("{} still has it", device.display())),
        "{text}"
    );

    fs::rename(&elsewhere, &path).unwrap();
    let Discovery { seen, failures } = fixture.discover_configured(&[dataset, other], records);
    assert!(failures.is_empty() && !seen.contains_key(&other), "{failures:?}");
    assert_eq!(seen[&dataset].size, SIZE);
    free(&device, &path);
}

#[test]
fn a_file_that_the_state_file_does_not_know_is_left_as_it_is() {
    let fixture = Fixture::new();
    let (dataset, device, _) = fixture.formatted();
    fixture.detach(dataset, &device);
    let Discovery { seen, failures } = fixture.discover_configured(&[dataset], StorageRecords::default());
    assert_eq!(seen[&dataset].condition, Condition::Unavailable);
    assert!(matches!(failures[0].1, StepError::Unknown(_)), "{failures:?}");

    // One that has never been mounted has no data, and is recorded again.
    let fresh = Uuid::new_v4();
    fixture.backend.volumes().create(fresh, SIZE).unwrap();
    let Discovery { seen, failures } = fixture.discover_configured(&[fresh], StorageRecords::default());
    assert!(!seen.contains_key(&fresh) && failures.is_empty(), "{failures:?}");
    fixture.backend.volumes().create(fresh, SIZE).unwrap();
}

#[test]
fn a_file_that_two_loop_devices_have_is_not_attached() {
    let fixture = Fixture::new();
    let (dataset, device, _) = fixture.formatted();
    fixture.detach(dataset, &device);
    let path = fixture.backend.volumes().path(dataset);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let twice = [(); 2].map(|()| attach(&file, BUFFERED).unwrap());
    let outcome = fixture.attach(dataset, ANY);
    assert!(
        matches!(outcome, Err(StepError::AttachedTwice(..))),
        "{outcome:?}"
    );
    for device in &twice {
        free(device, &path);
    }
}

/// The device of the other dataset is known, so it is not opened to find out which file it has.
#[test]
fn a_file_that_is_another_name_of_an_attached_one_is_not_attached() {
    let fixture = Fixture::new();
    let (dataset, device, _) = fixture.formatted();
    let (path, link) = (fixture.backend.volumes().path(dataset), Uuid::new_v4());
    fs::hard_link(&path, fixture.backend.volumes().path(link)).unwrap();
    let outcome = fixture.attach(link, ANY);
    assert!(
        matches!(&outcome, Err(StepError::AttachedByOthers(other)) if *other == device),
        "{outcome:?}"
    );
    free(&device, &path);
}

/// As one that a killed process has left behind does.
#[test]
fn a_device_that_another_mkfs_writes_to_is_not_formatted_until_that_has_ended() {
    let fixture = Fixture::new();
    let (dataset, device) = fixture.attached();
    let exclusive = OFlags::EXCL.bits().cast_signed();
    let other = File::options()
        .read(true)
        .write(true)
        .custom_flags(exclusive)
        .open(&device)
        .unwrap();
    let refused = fixture.backend.make_file_system(dataset, &device);
    assert!(matches!(refused, Err(StepError::Program { .. })), "{refused:?}");
    drop(other);
    fixture.backend.make_file_system(dataset, &device).unwrap();
    free(&device, &fixture.backend.volumes().path(dataset));
}
