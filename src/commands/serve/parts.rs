//! How the parts of the plugin are made of its configuration.

use std::sync::Arc;

use futures::FutureExt;

use crate::config::{Config, ListScope};
use crate::controller::ControllerService;
use crate::flocker::attach::Attach;
use crate::flocker::cluster::Cluster;
use crate::flocker::node_identity::{NodeIdentity, Sources, ThisNode};
use crate::flocker::provisioning::{self, Provisioner, Scope};
use crate::host::HostSettings;
use crate::node::{self, NodeService};
use crate::operation::Locks;

/// Returns where this node's UUID is looked for.
pub(super) fn sources(config: &Config) -> Sources {
    Sources::new(
        config.node.node_id,
        config.node.node_id_file.clone(),
        config.node.state_dir.clone(),
    )
}

/// Returns where this machine's mounts, records and device nodes are.
pub(super) fn host_settings(config: &Config) -> HostSettings {
    HostSettings {
        mount_root: config.node.mount_root.clone(),
        state_dir: config.node.state_dir.clone(),
        device_dir: config.plugin.device_dir.clone(),
    }
}

/// Returns how the services find out which node this is.
pub(super) fn this_node(identity: &NodeIdentity) -> ThisNode {
    let identity = identity.clone();
    Arc::new(move || {
        let identity = identity.clone();
        async move { identity.resolve().await }.boxed()
    })
}

/// Whether only the volumes of this node are listed and made.
pub(super) fn of_one_node(config: &Config) -> bool {
    config.plugin.list_scope == ListScope::Node
}

/// Makes what both services make volumes with, so that they share what is about to be declared.
pub(super) fn provisioner(
    config: &Config,
    cluster: &Cluster,
    this_node: &ThisNode,
    locks: &Locks,
) -> Provisioner {
    let settings = provisioning::ProvisioningSettings {
        driver_name: config.plugin.driver_name.clone(),
        namespace: config.plugin.namespace(),
        scope: if of_one_node(config) {
            Scope::Node(Arc::clone(this_node))
        } else {
            Scope::Cluster
        },
        provision_wait: config.plugin.provision_wait,
        sizes: config.plugin.sizes(),
        pools: config.pools.clone(),
    };
    Provisioner::new(settings, cluster.clone(), locks.clone())
}

/// Makes the controller service; beside a node it takes over the leases which that is about to release.
pub(super) fn controller(
    config: &Config,
    cluster: &Cluster,
    locks: Locks,
    provisioner: Provisioner,
    node: Option<&NodeService>,
) -> ControllerService {
    let attach = Attach::new(cluster.clone(), locks.clone()).taking_over(config.node_loss.takeover);
    let attach = match node {
        Some(node) => attach.taking_from(node.pending_releases()),
        None => attach,
    };
    let state_dir = Some(config.node.state_dir.as_path());
    ControllerService::new(provisioner, cluster.clone(), attach, locks, state_dir)
}

/// Makes the node service; it makes volumes only where that is switched on.
pub(super) fn node(
    config: &Config,
    cluster: &Cluster,
    this_node: &ThisNode,
    locks: &Locks,
    provisioner: &Provisioner,
) -> NodeService {
    let settings = node::Settings {
        host: host_settings(config),
        max_volumes_per_node: i64::from(config.plugin.max_volumes_per_node),
        takeover: config.node_loss.takeover,
    };
    let first_use = (config.plugin.create_on_first_use).then(|| provisioner.on(Arc::clone(this_node)));
    NodeService::new(
        settings,
        cluster.clone(),
        Arc::clone(this_node),
        locks.clone(),
        first_use,
    )
}
