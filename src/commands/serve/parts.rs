//! Creates the parts of the plugin from its configuration.

use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;

use crate::commands::failure::Failure;
use crate::config::{Config, Endpoint, ListScope};
use crate::controller::ControllerService;
use crate::flocker::attach::Attach;
use crate::flocker::cluster::Cluster;
use crate::flocker::node_identity::{NodeIdentity, Sources, ThisNode};
use crate::flocker::provisioning::{self, Provisioner, Scope};
use crate::host::{HostSettings, PinStore, host_name};
use crate::node::{self, NodeService};
use crate::operation::Locks;
use crate::server::{Limits, ServingNode};
use crate::telemetry::{Metrics, ProgramAttributes, TraceExport};

/// Returns the sources of this node's UUID.
pub(crate) fn sources(config: &Config) -> Sources {
    Sources::new(
        config.node.node_id,
        config.node.node_id_file.clone(),
        config.node.state_dir.clone(),
    )
}

/// Returns what clients can make the plugin hold.
pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        connections: config.plugin.max_connections as usize,
        calls: config.plugin.max_calls as usize,
    }
}

/// Returns where this machine's mounts, records and device nodes are.
pub(crate) fn host_settings(config: &Config, metrics: &Metrics) -> HostSettings {
    HostSettings {
        mount_root: config.node.mount_root.clone(),
        state_dir: config.node.state_dir.clone(),
        device_dir: config.plugin.device_dir.clone(),
        accept_unverified_propagation: config.plugin.accept_unverified_propagation,
        socket_dir: match &config.plugin.endpoint {
            Endpoint::Unix(socket) => std::path::absolute(socket)
                .ok()
                .and_then(|socket| socket.parent().map(Path::to_owned)),
            Endpoint::Tcp(_) => None,
        },
        agent_file_systems: config.node.agent_file_systems.clone(),
        pin_store: PinStore::default(),
        metrics: metrics.clone(),
    }
}

/// Returns the function by which the services determine this node's UUID.
pub(super) fn this_node(identity: &NodeIdentity) -> ThisNode {
    let identity = identity.clone();
    Arc::new(move || {
        let identity = identity.clone();
        async move { identity.resolve().await }.boxed()
    })
}

/// Returns this node for the log of its calls.
pub(super) fn serving_node(identity: &NodeIdentity) -> ServingNode {
    let identity = identity.clone();
    ServingNode {
        id: Arc::new(move || identity.known()),
        host: host_name().into(),
    }
}

/// Whether the plugin lists and creates only the volumes of this node.
pub(super) fn of_one_node(config: &Config) -> bool {
    config.plugin.list_scope == ListScope::Node
}

/// Creates the provisioner that both services share, so that each knows the datasets that the other is declaring.
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
        topology: config.plugin.topology_key(),
    };
    Provisioner::new(settings, cluster.clone(), locks.clone())
}

/// Creates the controller service. In one process with a node service, it takes over leases which that has yet to
/// release.
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

/// Creates the node service, which creates volumes only with `create_on_first_use`.
pub(super) fn node(
    config: &Config,
    cluster: &Cluster,
    this_node: &ThisNode,
    locks: &Locks,
    provisioner: &Provisioner,
    pin_store: PinStore,
) -> NodeService {
    let settings = node::NodeSettings {
        host: HostSettings {
            pin_store,
            ..host_settings(config, cluster.metrics())
        },
        max_volumes_per_node: i64::from(config.plugin.max_volumes_per_node),
        topology: config.plugin.topology_key(),
        takeover: config.node_loss.takeover,
        leases: node::LeaseSettings {
            abandoned_grace: config.node.abandoned_grace,
            unexplained_grace: config.node_loss.takeover_grace,
            only_nodes_attach: config.node.only_nodes_attach && !config.mode.serves_controller(),
        },
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

/// Begins to export traces, if the settings name a collector.
pub(super) async fn traces(config: &Config, cluster: &Cluster) -> Result<Option<TraceExport>, Failure> {
    let Some(endpoint) = &config.plugin.otlp_endpoint else {
        return Ok(None);
    };
    let program = ProgramAttributes {
        host: host_name(),
        driver: config.plugin.driver_name.clone(),
        mode: config.mode.name(),
    };
    let begun = TraceExport::begin(endpoint.clone(), program, cluster.counters(), cluster.tasks()).await;
    let (traces, export) = begun
        .map_err(|error| Failure::Failed(format!("cannot connect to the collector of traces: {error}")))?;
    cluster.metrics().trace_with(traces);
    Ok(Some(export))
}
