//! What the backend does when a loop device, or a backing file, has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::{NamedTempFile, TempDir};
use uuid::Uuid;

use super::error::StepError;
use super::loop_device::{AttachedDevice, attach, has_file};
use super::mounting::is_mounted;
use super::program::Programs;
use super::storage::Backend;
use super::{Condition, Discovery};
use crate::data_dir::DataDir;
use crate::namespace;
use crate::options::NodeInfo;
use crate::store::Configuration;

const SIZE: u64 = 16 << 20;

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
        let foreign_device = attach(&foreign_file.reopen().unwrap()).unwrap();
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
        let outcomes = self.backend.attach(&[dataset], |_| Ok(())).unwrap();
        assert!(
            outcomes.iter().all(|(_, outcome)| outcome.is_ok()),
            "{outcomes:?}"
        );
        let device = self.backend.devices()[&dataset].clone();
        (dataset, device)
    }

    fn foreign_device_is_attached(&self) -> bool {
        has_file(&self.foreign_device, self.foreign_file.path()).unwrap()
    }

    fn discover(&self, owned: &[Uuid]) -> Discovery {
        let attachments = owned.iter().map(|dataset| (*dataset, self.node.uuid)).collect();
        self.backend
            .discover(
                &self.node,
                &Configuration::default(),
                &attachments,
                &BTreeSet::new(),
            )
            .unwrap()
    }
}

fn open(directory: &Path) -> Backend {
    Backend::open(Arc::new(DataDir::claim(directory).unwrap()), Some(1 << 30)).unwrap()
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
    let programs = Programs::find().unwrap();
    assert!(!programs.has_file_system(&fixture.foreign_device).unwrap());
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
        programs.make_file_system(&fixture.foreign_device).unwrap();
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
        rustix::mount::unmount(&target, UnmountFlags::empty()).unwrap();
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
    File::create(volumes.join(other.to_string()))
        .unwrap()
        .set_len(SIZE)
        .unwrap();

    let backend = open(directory.path());
    let outcomes: BTreeMap<_, _> = backend
        .attach(&[broken, other], |_| Ok(()))
        .unwrap()
        .into_iter()
        .collect();
    assert!(
        outcomes[&broken].is_err() && outcomes[&other].is_ok(),
        "{outcomes:?}"
    );
    let device = backend.devices()[&other].clone();
    free(&device, &volumes.join(other.to_string()));
}
