//! What a crash may leave, and what must exist when everything is recovered.

use host_fs::mount::testing::unmount;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use csi_proto::v1::volume_capability::access_mode::Mode;
use flocker_client::Client;
use rustix::io::Errno;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::calls::Sight;
use crate::support::csi::{Usage, with_flags};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mount, Mounts, only_mount_at};

/// How far a volume is on its way to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Level {
    Nothing,
    Staged,
    Published,
}

/// Which service takes the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    Controller,
    Staging,
    None,
}

/// The flags of every published mount.
const FLAGS: [&str; 2] = ["nosuid", "noexec"];

/// One volume on one node.
pub(super) struct Workspace {
    pub(super) flocker: Flocker,
    pub(super) machine: Machine,
    pub(super) usage: Usage,
    client: Client,
    lease: Lease,
}

impl Workspace {
    /// Prepares a new volume to be used.
    pub(super) async fn new(lease: Lease) -> Self {
        let flocker = Flocker::start(2).await;
        let machine = Machine::new(&flocker, 1);
        let client = flocker.client().await;
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        // Attaching it also moves it to this node.
        let mut context = plugin.csi.attach(volume, machine.node()).await;
        if lease != Lease::Controller {
            plugin.csi.detach(volume, machine.node()).await;
        }
        if lease == Lease::Staging {
            context.clear();
        }
        plugin.kill().await;
        let usage = Usage {
            capability: with_flags(Mode::SingleNodeWriter, &FLAGS),
            ..machine.usage("data", volume, &context)
        };
        flocker.reports(1, volume).await;
        let workspace = Self {
            flocker,
            machine,
            usage,
            client,
            lease,
        };
        fs::write(workspace.flockers_mount().join("file"), data()).unwrap();
        workspace
    }

    pub(super) fn sight(&self) -> Sight {
        let config = &self.machine.config;
        Sight {
            places: vec![
                ("state", config.node.state_dir.clone()),
                ("devices", config.plugin.device_dir.clone()),
                ("staging", self.usage.staging.clone()),
                ("target", self.usage.target.clone()),
                ("flocker", config.node.mount_root.clone()),
            ],
            dataset: self.usage.dataset(),
            loops: false,
        }
    }

    /// Moves the volume to the other node, so that staging must move it back.
    pub(super) async fn move_away(&self) {
        let moved = self
            .client
            .move_dataset(self.usage.dataset(), self.flocker.node(2));
        moved.await.unwrap();
        self.flocker.reports(2, self.usage.dataset()).await;
    }

    async fn leaseholder(&self) -> Option<Uuid> {
        let leases = self.client.list_leases().await.unwrap();
        let lease = leases
            .into_iter()
            .find(|lease| lease.dataset_id == self.usage.dataset());
        lease.map(|lease| lease.node_uuid)
    }

    /// Reads what a killed plugin has left, before any other process changes it.
    pub(super) async fn inspect_remains(&self) {
        let (alias, target) = (mounts_at(&self.usage.alias()), mounts_at(&self.usage.target));
        assert!(alias.len() <= 1 && target.len() <= 1, "{alias:?} {target:?}");
        for mount in alias.iter().chain(&target) {
            assert_eq!(
                Path::new(&mount.source),
                self.device(),
                "{mount:?} is known by its name"
            );
        }
        for mount in &target {
            assert_complete(mount);
            assert_eq!(alias.len(), 1, "what is published is staged");
        }
        if target.is_empty() && self.usage.target.exists() {
            assert_eq!(
                entries(&self.usage.target),
                [""; 0],
                "nothing was written beside the volume"
            );
        }
        let workbench = self.state("mounts");
        let others = self.mounts().into_iter().filter(|mount| {
            mount.point != self.usage.alias()
                && mount.point != self.usage.target
                && !mount.point.starts_with(&workbench)
        });
        assert_eq!(others.collect::<Vec<_>>(), []);

        let records = self.records();
        assert!(records.len() <= 1, "{records:?}");
        let known = records.first();
        if !alias.is_empty() || self.device().exists() {
            let origin = known.map(|record| &record["origin"]);
            assert!(
                origin.is_some_and(|origin| !origin.is_null()),
                "no mount without a record of what it is: {known:?}"
            );
        }
        if self.lease == Lease::Staging && self.leaseholder().await.is_some() {
            let takes_lease = known.map(|record| &record["takes_lease"]);
            assert_eq!(
                takes_lease,
                Some(&Value::Bool(true)),
                "no lease without a record of who took it"
            );
        }
    }

    /// Removes what an orchestrator removes when it abandons the call: it assumes that the target is a plain directory.
    pub(super) fn orchestrator_removes_target(&self) {
        if mounts_at(&self.usage.target).is_empty() {
            if self.usage.target.exists() {
                fs::remove_dir_all(&self.usage.target).unwrap();
            }
        } else {
            let refused = rustix::fs::rmdir(&self.usage.target);
            assert_eq!(refused, Err(Errno::BUSY));
        }
    }

    /// Checks what a new plugin has done before any call.
    pub(super) fn check_restored(&self, plugin: u32) {
        assert_eq!(
            Mounts::read().below(&self.machine.config.node.state_dir),
            [],
            "no mount is left half done"
        );
        let unfinished = entries(&self.state("stages"));
        assert!(
            unfinished.iter().all(|name| !name.starts_with('.')),
            "{unfinished:?}"
        );
        if !mounts_at(&self.usage.alias()).is_empty() {
            assert_eq!(self.pins(plugin), 1, "it is pinned before it is asked for");
        }
    }

    /// Checks that the state is exactly as required.
    pub(super) async fn check(&self, level: Level, plugin: u32) {
        let holder = match self.lease {
            Lease::Controller => true,
            Lease::Staging => level >= Level::Staged,
            Lease::None => false,
        };
        if level == Level::Nothing {
            // Pending releases of an earlier process are carried out in the background.
            eventually("the record is removed", async || {
                self.records().is_empty().then_some(())
            })
            .await;
        }
        assert_eq!(self.leaseholder().await, holder.then(|| self.machine.node()));
        let mut mounts = Vec::new();
        if level >= Level::Staged {
            let alias = only_mount_at(&self.usage.alias());
            assert_eq!(Path::new(&alias.source), self.device());
            assert!(alias.options.contains(&"rw".to_owned()), "{alias:?}");
            mounts.push(alias);
            self.check_staged();
        } else {
            assert_eq!(entries(&self.usage.staging), [""; 0]);
            assert!(self.machine.devices().is_empty());
            assert_eq!(entries(&self.state("stages")), [""; 0]);
        }
        if level == Level::Published {
            let target = only_mount_at(&self.usage.target);
            assert_complete(&target);
            mounts.push(target);
            fs::write(self.usage.target.join("new"), "writable").unwrap();
            fs::remove_file(self.usage.target.join("new")).unwrap();
        } else {
            assert!(!self.usage.target.exists());
        }
        assert_eq!(self.mounts(), mounts);
        assert_eq!(entries(&self.state("mounts")), [""; 0]);
        assert_eq!(self.pins(plugin), usize::from(level >= Level::Staged));
        match level {
            Level::Nothing => {}
            Level::Staged => check_data(&self.usage.alias()),
            Level::Published => check_data(&self.usage.target),
        }
    }

    fn check_staged(&self) {
        assert_eq!(self.machine.devices(), [self.device()]);
        assert_eq!(
            fs::metadata(self.device()).unwrap().rdev(),
            fs::metadata(self.flockers_mount()).unwrap().dev()
        );
        let (records, boot_id) = (
            self.records(),
            fs::read_to_string("/proc/sys/kernel/random/boot_id"),
        );
        assert_eq!(records.len(), 1, "{records:?}");
        let expected = [
            ("progress", "staged"),
            ("volume_id", &self.usage.volume_id),
            ("dataset_id", &self.usage.volume_id),
            ("staging_path", self.usage.staging.to_str().unwrap()),
            ("boot_id", boot_id.unwrap().trim()),
        ]
        .map(|(field, value)| (field, Value::from(value)));
        for (field, value) in expected {
            assert_eq!(records[0][field], value, "{field}");
        }
        assert_eq!(records[0]["takes_lease"], self.lease == Lease::Staging);
    }

    /// Puts the node in its state after a reboot; the plugin does not run.
    pub(super) fn reboot(&self) {
        unmount(self.usage.alias());
        // It is on a file system in memory.
        fs::remove_dir_all(&self.machine.config.plugin.device_dir).unwrap();
        for path in self.machine.records() {
            let mut document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            document["record"]["boot_id"] = Uuid::new_v4().to_string().into();
            fs::write(&path, document.to_string()).unwrap();
        }
    }

    fn flockers_mount(&self) -> PathBuf {
        self.flocker.mount_of(1, self.usage.dataset())
    }

    fn device(&self) -> PathBuf {
        self.machine.config.plugin.device_dir.join(&self.usage.volume_id)
    }

    fn state(&self, name: &str) -> PathBuf {
        self.machine.config.node.state_dir.join(name)
    }

    fn mounts(&self) -> Vec<Mount> {
        Mounts::read().below(&self.machine.path(""))
    }

    /// Returns the records that are complete.
    fn records(&self) -> Vec<Value> {
        let records = self.machine.records().into_iter();
        let complete = records.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        complete
            // A task in the background may have removed it by now.
            .filter_map(|path| fs::read(path).ok())
            .map(|text| serde_json::from_slice::<Value>(&text).unwrap()["record"].take())
            .collect()
    }

    /// Counts the descriptors with which a plugin holds Flocker's mount.
    fn pins(&self, plugin: u32) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{plugin}/fd")).unwrap();
        descriptors
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .filter(|path| *path == self.flockers_mount())
            .count()
    }
}

fn mounts_at(path: &Path) -> Vec<Mount> {
    Mounts::read().at(path)
}

/// The content of the volume.
fn data() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn check_data(place: &Path) {
    let found = fs::read(place.join("file")).unwrap();
    assert_eq!(Sha256::digest(found), Sha256::digest(data()));
}

fn assert_complete(mount: &Mount) {
    for flag in FLAGS.iter().chain(&["rw"]) {
        assert!(mount.options.iter().any(|option| option == flag), "{mount:?}");
    }
}

/// Returns the names in a directory; none if the directory does not exist.
fn entries(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}
