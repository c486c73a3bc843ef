//! How volumes are created.

use clap::ValueEnum;
use uuid::Uuid;

use super::pool::Pool;

use crate::error::Result;
use crate::flocker::node_identity::ThisNode;
use crate::volume::{Namespace, SizePolicy, TopologyKey};

/// The nodes whose volumes are listed and created.
#[derive(Clone)]
pub enum Scope {
    /// All nodes of the cluster. A new volume is created on the node with the least data.
    Cluster,
    /// Only this node, as configured primary. Each Mesos agent runs its own plugin and offers the volumes that it lists.
    Node(ThisNode),
}

impl Scope {
    /// Whether it contains every node.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster)
    }

    /// Returns the only node of this scope, or nothing when it contains every node.
    ///
    /// # Errors
    /// It is not known which node this machine is.
    pub(crate) async fn node(&self) -> Result<Option<Uuid>> {
        match self {
            Self::Cluster => Ok(None),
            Self::Node(this_node) => this_node().await.map(Some),
        }
    }
}

/// When a volume counts as created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProvisionWait {
    /// When its storage exists.
    Backed,
    /// When it is in Flocker's configuration.
    Declared,
}

/// How volumes are created.
#[derive(Clone)]
pub struct ProvisioningSettings {
    /// The name of the driver, which the metadata of its datasets contains.
    pub driver_name: String,
    /// Where volume names are unique.
    pub namespace: Namespace,
    /// The nodes whose volumes are listed and created.
    pub scope: Scope,
    /// When a new volume counts as created.
    pub provision_wait: ProvisionWait,
    /// How large new volumes are.
    pub sizes: SizePolicy,
    /// The storage, declared because Flocker reports none.
    pub pools: Vec<Pool>,
    /// The segment that names a node; `None` where topology is off.
    pub topology: Option<TopologyKey>,
}
