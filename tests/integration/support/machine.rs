//! A node of Flocker's from a plugin's point of view.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use csi_proto::v1::volume_capability::access_mode::Mode;
use flocker_csi::commands::serve::Plugin;
use flocker_csi::config::Endpoint;
use flocker_csi::config::{
    self, Config, FlockerConfig, KubeletConfig, LogConfig, NodeConfig, NodeLossConfig, PluginConfig,
};
use uuid::Uuid;

use super::csi::{Csi, Usage, capability};
use super::flocker::Flocker;
use super::process::Process;

/// A node, with all files that a plugin keeps on it between runs.
pub(crate) struct Machine {
    /// The number of the node, counted from 1.
    pub(crate) number: usize,
    directory: PathBuf,
    pub(crate) config: Config,
}

/// A plugin in this process.
pub(crate) struct Running {
    plugin: Plugin,
    pub(crate) csi: Csi,
}

impl Machine {
    /// Prepares a node of `flocker`, by its number, counted from 1.
    pub(crate) fn new(flocker: &Flocker, number: usize) -> Self {
        Self::through(flocker.embedded().address(), flocker, number)
    }

    /// As [`Self::new`]; `flocker` is reached at another address.
    pub(crate) fn through(address: SocketAddr, flocker: &Flocker, number: usize) -> Self {
        let directory = flocker.path().join(format!("machine-{number}"));
        for name in ["staging", "targets"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        let node = &flocker.embedded().nodes()[number - 1];
        let config = Config {
            mode: config::Mode::All,
            plugin: PluginConfig {
                endpoint: Endpoint::Unix(directory.join("csi.sock")),
                device_dir: directory.join("devices"),
                default_size: 64 << 20,
                // Each test has a mount namespace of its own, which the host does not see.
                accept_unverified_propagation: true,
                ..PluginConfig::default()
            },
            flocker: FlockerConfig::embedded(address, flocker.embedded().certificates()),
            node_loss: NodeLossConfig::default(),
            node: NodeConfig::of(node.uuid, node.mount_root.clone(), directory.join("state")),
            kubelet: KubeletConfig::default(),
            pools: Vec::new(),
            log: LogConfig::default(),
        };
        Self {
            number,
            directory,
            config,
        }
    }

    pub(crate) fn node(&self) -> Uuid {
        self.config.node.node_id.unwrap()
    }

    /// Returns a path on this node.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns the existing device nodes.
    pub(crate) fn devices(&self) -> Vec<PathBuf> {
        let mut files = files_in(&self.config.plugin.device_dir);
        // It belongs to the plugin as long as that runs.
        files.retain(|file| !file.ends_with("lock"));
        files
    }

    /// Returns the records of staged volumes.
    pub(crate) fn records(&self) -> Vec<PathBuf> {
        files_in(&self.config.node.state_dir.join("stages"))
    }

    /// Changes the records to those of an earlier boot.
    pub(crate) fn age_records(&self) {
        for record in self.records() {
            let text = fs::read_to_string(&record).unwrap();
            let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
            document["record"]["boot_id"] = Uuid::new_v4().to_string().into();
            fs::write(&record, document.to_string()).unwrap();
        }
    }

    /// Plans to use a volume under a name that the orchestrator chose, with an existing staging path.
    pub(crate) fn usage(&self, name: &str, volume: Uuid, publish_context: &HashMap<String, String>) -> Usage {
        let staging = self.path("staging").join(name);
        fs::create_dir_all(&staging).unwrap();
        Usage {
            volume_id: volume.to_string(),
            publish_context: publish_context.clone(),
            volume_context: HashMap::new(),
            staging,
            target: self.path("targets").join(name),
            capability: capability(Mode::SingleNodeWriter),
            readonly: false,
        }
    }

    /// Starts a plugin in this process.
    pub(crate) async fn plugin(&self) -> Running {
        let plugin = Plugin::start(self.config.clone()).await;
        let plugin = plugin.unwrap_or_else(|failure| panic!("{failure:?}"));
        let csi = Csi::connect(plugin.endpoint()).await;
        Running { plugin, csi }
    }

    /// Starts a plugin in a process of its own.
    pub(crate) async fn process(&self, more: &[&str]) -> Process {
        let flags = self.flags();
        let flags = flags.iter().map(String::as_str).chain(more.iter().copied());
        Process::start(
            ["serve"].into_iter().chain(flags).collect(),
            &self.path("plugin.log"),
        )
        .await
    }

    /// Returns the settings as arguments of the command line.
    pub(crate) fn flags(&self) -> Vec<String> {
        let Config {
            plugin,
            flocker,
            node,
            ..
        } = &self.config;
        vec![
            format!("--endpoint={}", plugin.endpoint),
            format!("--device-dir={}", plugin.device_dir.display()),
            format!("--default-size={}", plugin.default_size),
            format!(
                "--accept-unverified-propagation={}",
                plugin.accept_unverified_propagation
            ),
            format!("--control-service={}", flocker.control_service),
            format!("--cluster-cert={}", flocker.cluster_cert.display()),
            format!("--user-cert={}", flocker.user_cert.display()),
            format!("--user-key={}", flocker.user_key.display()),
            format!("--node-id={}", self.node()),
            format!("--mount-root={}", node.mount_root.display()),
            format!("--state-dir={}", node.state_dir.display()),
        ]
    }
}

impl Running {
    pub(crate) async fn stop(self) {
        let stopped = self.plugin.stop().await;
        stopped.unwrap_or_else(|failure| panic!("{failure:?}"));
    }
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().path()).collect()
}
