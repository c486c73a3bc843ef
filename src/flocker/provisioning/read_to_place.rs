//! What is read of Flocker before a volume is placed.

use std::sync::Arc;

use uuid::Uuid;

use super::placement::Placement;
use super::provisioner::Provisioner;
use crate::error::Result;
use crate::flocker::cluster::{Lists, Snapshot};
use crate::operation::Context;

impl Provisioner {
    /// Reads whether a volume exists and where there is room for it; the nodes may have been listed a moment ago. The states
    /// matter to pools only, in which deleted datasets need space until they are destroyed.
    pub(super) async fn read_to_place(
        &self,
        context: &Context,
        placement: &Placement,
    ) -> Result<(Arc<Snapshot>, Vec<Uuid>)> {
        // A preferred node may be new.
        let is_enough = |nodes: &Vec<Uuid>| placement.preferred.iter().all(|node| nodes.contains(node));
        let recent = self.cluster.recent_nodes().filter(is_enough);
        let mut lists = Lists::CONFIGURATION;
        lists.set(Lists::NODES, recent.is_none());
        lists.set(Lists::STATE, !self.settings.pools.is_empty());
        let snapshot = self.cluster.fresh_for(context, lists).await?;
        let nodes = recent.unwrap_or_else(|| snapshot.nodes().map(|node| node.uuid).collect());
        Ok((snapshot, nodes))
    }
}
