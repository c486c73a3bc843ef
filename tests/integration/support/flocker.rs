//! An embedded Flocker with real file systems.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use flocker_client::{Client, Credentials, Settings};
use flocker_csi::cluster::{self, Cluster};
use flocker_embedded::{Embedded, Options};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;
use uuid::Uuid;

/// A Flocker in a temporary directory, which takes its loop devices and mounts with it.
pub(crate) struct Flocker {
    embedded: Option<Embedded>,
    directory: TempDir,
}

impl Flocker {
    /// Starts one with that many nodes at full speed.
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::with(|options| Options { nodes, ..options }).await
    }

    /// Starts one whose options are changed by `change`.
    pub(crate) async fn with(change: impl FnOnce(Options) -> Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new(
            directory.path().join("data"),
            directory.path().join("certificates"),
        );
        let embedded = Embedded::start(change(options)).await.unwrap();
        Self {
            embedded: Some(embedded),
            directory,
        }
    }

    /// Returns the Flocker itself.
    pub(crate) fn embedded(&self) -> &Embedded {
        self.embedded.as_ref().expect("it runs until it is stopped")
    }

    /// Returns the UUID of a node, by its number, counted from 1.
    pub(crate) fn node(&self, number: usize) -> Uuid {
        self.embedded().nodes()[number - 1].uuid
    }

    /// Returns what a client has to know.
    pub(crate) fn settings(&self) -> Settings {
        let file = |name: &str| self.embedded().certificates().join(name);
        let credentials = Credentials::load(&file("cluster.crt"), &file("plugin.crt"), &file("plugin.key"));
        Settings {
            control_service: format!("https://{}", self.embedded().address()).parse().unwrap(),
            credentials: credentials.unwrap(),
            server_name: "control-service".to_owned(),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
        }
    }

    /// Returns a client of its own.
    pub(crate) async fn client(&self) -> Client {
        let settings = self.settings();
        tokio::task::spawn_blocking(|| Client::new(settings))
            .await
            .unwrap()
            .unwrap()
    }

    /// Returns the view of another process, for which a node is gone after three minutes.
    pub(crate) fn cluster(&self) -> Cluster {
        self.cluster_with_grace(Duration::from_secs(180))
    }

    /// Returns the view of another process, for which a node is gone after `grace`.
    pub(crate) fn cluster_with_grace(&self, grace: Duration) -> Cluster {
        Cluster::new(cluster::Flocker::new(self.settings()), grace)
    }

    /// Returns the backing files, one for each volume that exists.
    pub(crate) fn backing_files(&self) -> Vec<PathBuf> {
        let volumes = fs::read_dir(self.directory.path().join("data/volumes")).unwrap();
        volumes.map(|entry| entry.unwrap().path()).collect()
    }

    /// Stops it in good order, as when its process gets a signal; its address answers no more.
    pub(crate) async fn stop(&mut self) {
        if let Some(embedded) = self.embedded.take() {
            embedded.stop().await.unwrap();
        }
    }
}

impl Drop for Flocker {
    fn drop(&mut self) {
        drop(self.embedded.take());
        let directory = self.directory.path().canonicalize().unwrap();
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        // The last one first: mounts may lie upon each other.
        for point in table.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(point).starts_with(&directory) {
                unmount(point, UnmountFlags::DETACH).ok();
            }
        }
        for device in loop_devices_on(&directory) {
            Command::new("losetup").arg("--detach").arg(device).status().ok();
        }
    }
}

/// Returns the loop devices whose file is below `directory`, deleted or not.
pub(crate) fn loop_devices_on(directory: &Path) -> Vec<PathBuf> {
    let devices = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap());
    let on_directory = devices.filter(|device| {
        let file = fs::read_to_string(device.path().join("loop/backing_file"));
        file.is_ok_and(|file| Path::new(file.trim_end()).starts_with(directory))
    });
    on_directory
        .map(|device| Path::new("/dev").join(device.file_name()))
        .collect()
}
