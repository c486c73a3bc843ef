//! What recent answers of Flocker have shown that needs no read for some time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Cluster, Lists, Snapshot};

/// How long a node that was listed counts as listed. Flocker itself lists a node for two minutes after it died, so a list
/// that is this old shows little less than a new one.
const NODES_FOR: Duration = Duration::from_secs(30);
/// How long a dataset that this process has created needs no read before its first lease is acquired.
const CREATED_FOR: Duration = Duration::from_secs(60);
/// How many such datasets are remembered.
const MOST_CREATED: usize = 1000;

/// What was answered lately; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct RecentAnswers(Arc<Mutex<Recent>>);

#[derive(Debug, Default)]
struct Recent {
    /// The last list of the nodes, and when its read began.
    nodes: Option<(Instant, Vec<Uuid>)>,
    /// The primaries of datasets that this process has created and not yet attached.
    created: HashMap<Uuid, (Instant, Uuid)>,
}

impl RecentAnswers {
    pub(super) fn nodes_listed(&self, began: Instant, nodes: &[Uuid]) {
        self.lock().nodes = Some((began, nodes.to_vec()));
    }

    pub(super) fn created(&self, dataset: Uuid, primary: Uuid) {
        let mut recent = self.lock();
        recent.created.retain(|_, (when, _)| when.elapsed() < CREATED_FOR);
        if recent.created.len() < MOST_CREATED {
            recent.created.insert(dataset, (Instant::now(), primary));
        }
    }

    fn take_created(&self, dataset: Uuid) -> Option<Uuid> {
        let (when, primary) = self.lock().created.remove(&dataset)?;
        (when.elapsed() < CREATED_FOR).then_some(primary)
    }

    pub(super) fn forget_created(&self, dataset: Uuid) {
        self.lock().created.remove(&dataset);
    }

    /// Returns the nodes that were listed lately. An empty list shows only that the control service has started again.
    fn nodes(&self) -> Option<Vec<Uuid>> {
        let recent = self.lock();
        let (when, nodes) = recent.nodes.as_ref()?;
        (when.elapsed() < NODES_FOR && !nodes.is_empty()).then(|| nodes.clone())
    }

    /// Returns the last list of the nodes, and how old it is.
    pub(super) fn last_nodes(&self) -> Option<(Duration, Vec<Uuid>)> {
        let recent = self.lock();
        let (when, nodes) = recent.nodes.as_ref()?;
        Some((when.elapsed(), nodes.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Returns the nodes that were listed lately, if that need not be read again.
    pub(crate) fn recent_nodes(&self) -> Option<Vec<Uuid>> {
        self.recent.nodes()
    }

    /// Returns the list of the nodes if it has not been read lately, to be read with other lists.
    pub(crate) fn nodes_unless_recent(&self) -> Lists {
        match self.recent_nodes() {
            Some(_) => Lists::empty(),
            None => Lists::NODES,
        }
    }

    /// Whether `snapshot` lists `node`, or a recent read did where the snapshot has no nodes. A node that is not listed then
    /// has to be looked up in a new list.
    pub(crate) fn listed_lately(&self, snapshot: &Snapshot, node: Uuid) -> bool {
        if snapshot.lists().contains(Lists::NODES) {
            snapshot.lists_node(node)
        } else {
            self.recent_nodes().is_some_and(|nodes| nodes.contains(&node))
        }
    }

    /// Returns the primary of a dataset that this process has created lately and not attached since, if `node` was listed
    /// lately. It is returned once.
    pub(crate) fn take_created(&self, dataset: Uuid, node: Uuid) -> Option<Uuid> {
        let primary = self.recent.take_created(dataset)?;
        let is_listed = self.recent_nodes().is_some_and(|nodes| nodes.contains(&node));
        is_listed.then_some(primary)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_list_of_nodes_is_good_for_half_a_minute_and_a_created_dataset_for_one_attachment() {
        let (node, dataset) = (Uuid::new_v4(), Uuid::new_v4());
        let recent = RecentAnswers::default();
        assert_eq!(recent.nodes(), None);
        recent.nodes_listed(Instant::now(), &[node]);
        assert_eq!(recent.nodes(), Some(vec![node]));
        advance(NODES_FOR).await;
        assert_eq!(recent.nodes(), None);
        recent.nodes_listed(Instant::now(), &[]);
        assert_eq!(recent.nodes(), None, "of a control service that has just started");

        recent.created(dataset, node);
        assert_eq!(recent.take_created(dataset), Some(node));
        assert_eq!(recent.take_created(dataset), None);
        recent.created(dataset, node);
        advance(CREATED_FOR).await;
        assert_eq!(recent.take_created(dataset), None);
    }
}
