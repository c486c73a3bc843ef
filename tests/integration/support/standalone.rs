//! A plugin with a Flocker of its own, as `flocker-csi standalone` runs them.

use std::fs;

use uuid::Uuid;

use super::csi::{Csi, Usage, capability};
use super::process::Process;
use super::scratch::{Scratch, loop_devices_on};

/// A plugin with a Flocker of its own.
pub(crate) struct Standalone {
    /// Declared first, so that it ends before its directory is removed.
    pub(crate) process: Process,
    pub(crate) scratch: Scratch,
}

impl Standalone {
    pub(crate) async fn start(scratch: Scratch) -> Self {
        Self::start_with(scratch, &[]).await
    }

    /// Starts it with more flags.
    pub(crate) async fn start_with(scratch: Scratch, flags: &[&str]) -> Self {
        let path = |name: &str| scratch.path().join(name).display().to_string();
        let own = [
            "standalone".to_owned(),
            format!("--data-dir={}", path("data")),
            format!("--endpoint=unix://{}", path("csi.sock")),
            format!("--device-dir={}", path("devices")),
            "--accept-unverified-propagation".to_owned(),
        ];
        let arguments = own.iter().map(String::as_str).chain(flags.iter().copied());
        let log = scratch.path().join("standalone.log");
        let process = Process::start(arguments.collect(), &log).await;
        Self { process, scratch }
    }

    pub(crate) async fn restart(self) -> Self {
        self.process.kill().await;
        Self::start(self.scratch).await
    }

    pub(crate) fn csi(&self) -> &Csi {
        &self.process.csi
    }

    /// Creates a volume and publishes it without an attachment by the controller.
    pub(crate) async fn published(&self, name: &str) -> Usage {
        let volume = self.csi().create(name).await;
        let place = self.scratch.path().join(name);
        fs::create_dir_all(place.join("staging")).unwrap();
        let usage = Usage {
            volume_id: volume.to_string(),
            publish_context: [].into(),
            volume_context: [].into(),
            staging: place.join("staging"),
            target: place.join("target"),
            capability: capability(csi_proto::v1::volume_capability::access_mode::Mode::SingleNodeWriter),
            readonly: false,
        };
        self.csi().stage(&usage).await.unwrap();
        self.csi().publish(&usage).await.unwrap();
        usage
    }

    pub(crate) async fn volumes(&self) -> Vec<Uuid> {
        let mut controller = self.csi().controller();
        let list = controller
            .list_volumes(csi_proto::v1::ListVolumesRequest::default())
            .await
            .unwrap();
        let entries = list.into_inner().entries.into_iter();
        entries
            .map(|entry| entry.volume.unwrap().volume_id.parse().unwrap())
            .collect()
    }

    /// Returns the backing file of each loop device.
    pub(crate) fn attached_files(&self) -> Vec<String> {
        let devices = loop_devices_on(self.scratch.path());
        let mut files: Vec<_> = devices
            .iter()
            .map(|device| {
                let name = device.file_name().unwrap().to_str().unwrap();
                fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).unwrap()
            })
            .collect();
        files.sort();
        files
    }

    pub(crate) fn flockers(&self, usage: &Usage) -> std::path::PathBuf {
        let root = self.scratch.path().join("data/flocker/node-1");
        root.join(&usage.volume_id)
    }
}
