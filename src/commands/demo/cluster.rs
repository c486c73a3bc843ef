//! The cluster of the demo: an embedded Flocker with two nodes, and a plugin on each.

use std::fs;
use std::path::PathBuf;

use flocker_embedded::{Allocation, Embedded, Options};
use uuid::Uuid;

use super::orchestrator::Orchestrator;
use super::screen::{Screen, Shown};
use super::workspace::{Workspace, blocking};
use crate::commands::failure::Failure;
use crate::commands::serve::Plugin;
use crate::config::Endpoint;
use crate::config::{
    Config, FlockerConfig, KubeletConfig, LogConfig, Mode, NodeConfig, NodeLossConfig, PluginConfig,
};
use crate::error;

const NODES: usize = 2;

/// A node: its plugin, and the orchestrator that calls it.
pub(super) struct DemoNode {
    plugin: Plugin,
    pub(super) orchestrator: Orchestrator,
    /// Its UUID in Flocker.
    pub(super) uuid: Uuid,
    /// The staging path.
    pub(super) staging: PathBuf,
    /// The target path.
    pub(super) target: PathBuf,
}

/// A running embedded Flocker and the nodes with their plugins.
pub(super) struct DemoCluster {
    flocker: Embedded,
    pub(super) nodes: Vec<DemoNode>,
}

impl DemoCluster {
    pub(super) async fn start(workspace: &Workspace, screen: &mut Screen) -> Result<Self, Failure> {
        let root = workspace.path().to_owned();
        let options = Options {
            nodes: NODES,
            // The workspace is in memory.
            allocation: Allocation::Thin,
            ..Options::new(root.join("flocker"), root.join("certificates"))
        };
        let title = format!("an embedded Flocker with {NODES} nodes");
        let starting = async {
            Shown::of(
                Embedded::start(options)
                    .await
                    .map_err(|error| crate::commands::embedded::start_failure(&error)),
            )
        };
        let flocker = screen.show("start", &title, starting).await?;
        let mut cluster = Self {
            flocker,
            nodes: Vec::new(),
        };
        let started = screen.show("start", "a plugin on each node", async {
            let started = cluster.start_plugins(root).await;
            let remark = started
                .is_ok()
                .then(|| "node-1/csi.sock, node-2/csi.sock".to_owned());
            Shown {
                outcome: started,
                remark: remark.unwrap_or_default(),
            }
        });
        match started.await {
            Ok(()) => Ok(cluster),
            Err(failure) => {
                let mut lines = failure.lines().to_vec();
                lines.extend(cluster.stop(screen).await);
                Err(Failure::Failed(lines.join("; then: ")))
            }
        }
    }

    async fn start_plugins(&mut self, root: PathBuf) -> Result<(), Failure> {
        for node in self.flocker.nodes().to_vec() {
            let directory = root.join(format!("node-{}", node.number));
            let (staging, pod) = (directory.join("staging"), directory.join("pod"));
            let directories = [staging.clone(), pod.clone()];
            let made = blocking(move || directories.iter().try_for_each(fs::create_dir_all)).await?;
            made.map_err(|error| Failure::context("create the orchestrator's directories", &error))?;
            let endpoint = format!("unix://{}", directory.join("csi.sock").display());
            let endpoint: Endpoint = endpoint.parse().map_err(|error| Failure::of(&error))?;
            let plugin = Plugin::start(Config {
                mode: Mode::All,
                plugin: PluginConfig {
                    endpoint,
                    device_dir: directory.join("devices"),
                    // The demo has a mount namespace of its own, with all processes that use its volumes.
                    accept_unverified_propagation: true,
                    ..PluginConfig::default()
                },
                flocker: FlockerConfig::embedded(self.flocker.address(), self.flocker.certificates()),
                node_loss: NodeLossConfig::default(),
                node: NodeConfig::of(node.uuid, node.mount_root, directory.join("state")),
                kubelet: KubeletConfig::default(),
                pools: Vec::new(),
                log: LogConfig::default(),
            })
            .await?;
            let orchestrator = Orchestrator::connect(plugin.endpoint())?;
            self.nodes.push(DemoNode {
                plugin,
                orchestrator,
                uuid: node.uuid,
                staging,
                target: pod.join("volume"),
            });
        }
        Ok(())
    }

    /// Stops everything, and returns every problem with that.
    pub(super) async fn stop(self, screen: &mut Screen) -> Vec<String> {
        let stopping = async {
            let mut problems = Vec::new();
            for DemoNode {
                plugin, orchestrator, ..
            } in self.nodes
            {
                // The plugin would wait for an open connection.
                drop(orchestrator);
                if let Err(failure) = plugin.stop().await {
                    problems.extend(failure.lines().iter().cloned());
                }
            }
            if let Err(error) = self.flocker.stop().await {
                problems.push(error::chain(&error));
            }
            Shown::of(if problems.is_empty() {
                Ok(())
            } else {
                Err(problems)
            })
        };
        screen
            .show("stop", "the plugins and Flocker", stopping)
            .await
            .err()
            .unwrap_or_default()
    }
}
