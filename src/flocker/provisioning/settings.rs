//! What has to be known to make volumes.

use clap::ValueEnum;
use uuid::Uuid;

use super::pool::Pool;

use crate::error::Result;
use crate::flocker::node_identity::ThisNode;
use crate::volume::{Namespace, SizePolicy};

/// Whose volumes are listed and made.
#[derive(Clone)]
pub enum Scope {
    /// Those of the whole cluster; new ones are made where the least data is.
    Cluster,
    /// Those whose configured primary is this node; new ones are made here. Each Mesos agent runs a plugin of its
    /// own and offers whatever that lists.
    Node(ThisNode),
}

impl Scope {
    /// Whether every node belongs to it.
    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster)
    }

    /// Returns the one node of this scope, or nothing when every node belongs to it.
    ///
    /// # Errors
    /// Those of finding out which node this is.
    pub async fn node(&self) -> Result<Option<Uuid>> {
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

/// How volumes are made.
#[derive(Clone)]
pub struct Settings {
    /// The name that datasets of ours carry in their metadata.
    pub driver_name: String,
    /// Where volume names are unique.
    pub namespace: Namespace,
    /// Whose volumes are listed and made.
    pub scope: Scope,
    /// When a new volume counts as created.
    pub provision_wait: ProvisionWait,
    /// How large new volumes are.
    pub sizes: SizePolicy,
    /// What storage there is. Flocker reports none, so it is declared.
    pub pools: Vec<Pool>,
}
