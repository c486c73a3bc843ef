//! An embedded Flocker with real file systems.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flocker_client::{Client, ClientSettings, Credentials, Dataset};
use flocker_csi::flocker::cluster::{self, Cluster};
use flocker_embedded::{Allocation, Embedded, Options};
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use uuid::Uuid;

use super::eventually;
use super::scratch::Scratch;

/// A Flocker in a temporary directory, which removes its loop devices and mounts with it.
pub(crate) struct Flocker {
    embedded: Option<Embedded>,
    scratch: Scratch,
}

impl Flocker {
    /// Starts one with that many nodes and without delays.
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::with(|options| Options { nodes, ..options }).await
    }

    /// Starts one whose options are changed by `change`.
    pub(crate) async fn with(change: impl FnOnce(Options) -> Options) -> Self {
        let scratch = Scratch::new();
        let options = Options {
            // Many volumes at once would not fit on every machine.
            allocation: Allocation::Thin,
            ..Options::new(scratch.path().join("data"), scratch.path().join("certificates"))
        };
        let embedded = Embedded::start(change(options)).await.unwrap();
        Self {
            embedded: Some(embedded),
            scratch,
        }
    }

    /// Returns the directory of all its files, to which tests may add files.
    pub(crate) fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// Returns the Flocker itself.
    pub(crate) fn embedded(&self) -> &Embedded {
        self.embedded.as_ref().expect("it runs until it is stopped")
    }

    /// Returns the UUID of a node, by its number, counted from 1.
    pub(crate) fn node(&self, number: usize) -> Uuid {
        self.embedded().nodes()[number - 1].uuid
    }

    /// Returns the path at which a node mounts a dataset.
    pub(crate) fn mount_of(&self, number: usize, dataset: Uuid) -> PathBuf {
        let node = &self.embedded().nodes()[number - 1];
        node.mount_root.join(dataset.to_string())
    }

    /// Waits until state reports a dataset as mounted on a node.
    pub(crate) async fn reports(&self, number: usize, dataset: Uuid) {
        let (client, node) = (self.client().await, self.node(number));
        eventually(&format!("node {number} reports {dataset}"), async || {
            let states = client.list_dataset_states().await.unwrap();
            let found = states.into_iter().find(|state| state.dataset_id == dataset)?;
            (found.primary == Some(node) && found.path.is_some()).then_some(())
        })
        .await;
    }

    /// Returns all configured datasets, including deleted ones.
    pub(crate) async fn datasets(&self) -> Vec<Dataset> {
        self.client().await.list_datasets().await.unwrap().datasets
    }

    /// Returns which node has the lease on a dataset.
    pub(crate) async fn leaseholder(&self, dataset: Uuid) -> Option<Uuid> {
        let leases = self.client().await.list_leases().await.unwrap();
        let lease = leases.into_iter().find(|lease| lease.dataset_id == dataset);
        lease.map(|lease| lease.node_uuid)
    }

    /// Returns the settings of a client.
    pub(crate) fn settings(&self) -> ClientSettings {
        let address = format!("https://{}", self.embedded().address());
        settings(&address, self.embedded().certificates())
    }

    /// Returns a client of its own.
    pub(crate) async fn client(&self) -> Client {
        let settings = self.settings();
        tokio::task::spawn_blocking(|| Client::new(settings))
            .await
            .unwrap()
            .unwrap()
    }

    /// Returns the view of another process, for which a node is dead after three minutes.
    pub(crate) fn cluster(&self) -> Cluster {
        self.cluster_with_grace(Duration::from_secs(180))
    }

    /// Returns the view of another process, for which a node is dead after `grace`.
    pub(crate) fn cluster_with_grace(&self, grace: Duration) -> Cluster {
        Cluster::new(cluster::Flocker::new(self.settings()), grace)
    }

    /// Returns the backing files, one for each volume that exists.
    pub(crate) fn backing_files(&self) -> Vec<PathBuf> {
        let volumes = fs::read_dir(self.path().join("data/volumes")).unwrap();
        volumes.map(|entry| entry.unwrap().path()).collect()
    }

    /// Stops it in good order, as when its process gets a signal; its address no longer answers.
    pub(crate) async fn stop(&mut self) {
        if let Some(embedded) = self.embedded.take() {
            embedded.stop().await.unwrap();
        }
    }
}

/// Returns the settings of a client of a Flocker that wrote its certificates into a directory.
pub(crate) fn settings(control_service: &str, certificates: &Path) -> ClientSettings {
    let file = |name: &str| certificates.join(name);
    let credentials = Credentials::load(&file("cluster.crt"), &file("plugin.crt"), &file("plugin.key"));
    ClientSettings::new(control_service.parse().unwrap(), credentials.unwrap())
}

impl Drop for Flocker {
    fn drop(&mut self) {
        // The work of its agents must end before the directory is removed with its mounts and loop devices.
        if let Some(embedded) = self.embedded.take() {
            block_in_place(|| Handle::current().block_on(embedded.stop())).ok();
        }
    }
}
