//! The plugin under a kubelet: its registration, and its probes.

mod caller;
mod directories;
pub(crate) mod probes;
pub(crate) mod readiness;
mod registration;

use std::fs;
use std::path::{Path, PathBuf};

use csi_proto::registration::{InfoRequest, PluginInfo, RegistrationStatus};
use csi_proto::v1::NodeGetInfoRequest;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};

use crate::support::csi::Csi;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;

/// The part of a kubelet that plugins see, with its directory on a machine.
struct Kubelet {
    registry: PathBuf,
}

impl Kubelet {
    /// Makes the directory, as a kubelet does when it starts.
    fn on(machine: &Machine) -> Self {
        let registry = machine.path("kubelet/plugins_registry");
        fs::create_dir_all(&registry).unwrap();
        Self { registry }
    }

    /// Returns the setting that makes the plugin register with it.
    fn flag(&self) -> String {
        format!("--kubelet-registration-dir={}", self.registry.display())
    }

    fn socket(&self) -> PathBuf {
        self.registry.join("flocker.csi.clusterhq.com-reg.sock")
    }

    /// Waits until a socket exists on which a process answers.
    async fn finds_plugin(&self) {
        let socket = self.socket();
        eventually("the plugin shows itself", async || {
            tokio::net::UnixStream::connect(&socket).await.ok().map(drop)
        })
        .await;
    }

    async fn asks(&self) -> PluginInfo {
        caller::call(&self.socket(), "GetInfo", InfoRequest {}).await
    }

    async fn says(&self, plugin_registered: bool, error: &str) {
        let status = RegistrationStatus {
            plugin_registered,
            error: error.to_owned(),
        };
        let (): () = caller::call(&self.socket(), "NotifyRegistrationStatus", status).await;
    }

    /// Registers a plugin by its socket as a kubelet does, and returns the id of the node.
    async fn registers(&self) -> String {
        self.finds_plugin().await;
        let info = self.asks().await;
        let csi = Csi::connect(&info.endpoint.parse().unwrap()).await;
        let node = csi.node().node_get_info(NodeGetInfoRequest {}).await.unwrap();
        self.says(true, "").await;
        node.into_inner().node_id
    }
}

/// One node of a Flocker of one, and its kubelet, all on a shared mount of their own, as a pod gets them.
async fn scene() -> (Flocker, Machine, Kubelet) {
    let flocker = Flocker::start(1).await;
    mount_bind(flocker.path(), flocker.path()).unwrap();
    for propagation in [MountPropagationFlags::PRIVATE, MountPropagationFlags::SHARED] {
        mount_change(flocker.path(), propagation).unwrap();
    }
    let machine = Machine::new(&flocker, 1);
    fs::create_dir_all(&machine.config.node.mount_root).unwrap();
    let kubelet = Kubelet::on(&machine);
    (flocker, machine, kubelet)
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}
