//! Whether a node that holds a lease may still use the volume.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::commands::stdout::remark;
use crate::flocker::cluster::{Absence, Cluster, Lists, Snapshot};
use crate::operation::Elapsed;

/// How often the list of nodes is read while a node is missing.
const READ_EVERY: Duration = Duration::from_secs(2);
/// How much longer than the grace period a node is watched: one failed read starts the run again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What Flocker says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::commands::admin) enum Presence {
    /// It lists it.
    Listed,
    /// It lists others, and not this one.
    Missing,
    /// It lists no node, or nodes whose ids cannot be read.
    Unknown,
}

impl Presence {
    pub(in crate::commands::admin) fn of(snapshot: &Snapshot, node: Uuid) -> Self {
        if snapshot.lists_node(node) {
            Self::Listed
        } else if snapshot.nodes().next().is_none() || snapshot.has_unknown_nodes() {
            Self::Unknown
        } else {
            Self::Missing
        }
    }
}

/// Watches a node that is missing until it counts as gone.
///
/// # Errors
/// A sentence that says why it does not: it is listed again, or Flocker's answers have a gap.
pub(super) async fn wait_until_gone(cluster: &Cluster, node: Uuid, grace: Duration) -> Result<(), String> {
    remark(format_args!(
        "node {node} is missing; it counts as gone once Flocker has not listed it for {} (takeover_grace). --force does not \
         wait for that",
        Elapsed(grace)
    ));
    let until = Instant::now() + grace + PATIENCE;
    let every = READ_EVERY.min(grace / 4).max(Duration::from_millis(50));
    loop {
        let read = cluster.fresh(Lists::NODES).await;
        if read.as_ref().is_ok_and(|snapshot| snapshot.lists_node(node)) {
            return Err(format!("Flocker lists node {node} again"));
        }
        if cluster.absence(node) == Absence::Gone {
            return Ok(());
        }
        if Instant::now() >= until {
            let why = read
                .err()
                .map_or_else(String::new, |error| format!(": {}", error.chain()));
            return Err(format!(
                "it is not certain that node {node} is gone, because Flocker did not answer without a gap for {}{why}",
                Elapsed(grace)
            ));
        }
        sleep(every).await;
    }
}
