//! What an attachment does, and what its caller is answered, when another node holds the lease, or
//! Flocker does not list the node.

use uuid::Uuid;

use super::{Attachment, AttemptOutcome, OtherNodesLease, Takeover, holder_of};
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Absence, FirstRead, Lists, Probe, Snapshot};
use crate::operation::{Elapsed, Phase};
use crate::telemetry::Counter;
use crate::telemetry::log_names::{NamedNode, host_of, listed_nodes};
use crate::volume::end_of_use;

impl Attachment<'_> {
    /// Waits until Flocker lists the node.
    ///
    /// A node that an orchestrator names may be one that never existed. One that was listed before does exist, as this node does,
    /// and may come back.
    pub(super) async fn node_reporting(&self) -> Result<()> {
        let (node, cluster) = (self.node, &self.attach.cluster);
        let may_be_unknown = self.other_lease == OtherNodesLease::Refuse && host_of(node).is_none();
        let wait = cluster.wait_until((Lists::NODES, FirstRead::AtOnce), self.context, |snapshot| {
            if snapshot.lists_node(node) {
                Probe::Ready(true)
            } else if may_be_unknown && cluster.absence(node) == Absence::Gone {
                Probe::Ready(false)
            } else {
                Probe::Waiting(Phase::NodeReporting { node })
            }
        });
        if wait.await? {
            return Ok(());
        }
        let text = format!(
            "node {node} does not exist, or its agent does not run: Flocker has not listed it for takeover_grace; it lists {}",
            listed_nodes()
        );
        Err(Error::new(Situation::UnknownNode, text))
    }

    /// Fails because of another node's lease, or waits until the lease blocks no longer.
    pub(super) async fn held_by(&self, holder: Uuid, seen: &Snapshot) -> Result<AttemptOutcome> {
        let (context, dataset) = (self.context, self.dataset);
        let lists = Lists::LEASES | Lists::NODES;
        if self.other_lease == OtherNodesLease::Refuse {
            return Err(self.held_elsewhere(holder, seen));
        }
        let freed = self
            .attach
            .cluster
            .wait_until((lists, FirstRead::AtOnce), context, |snapshot| {
                let differs = |found| found != Some(holder); // one that cannot be read may be the same
                if holder_of(snapshot, dataset).is_ok_and(differs)
                    || self.attach.may_take_over(snapshot, holder)
                {
                    Probe::Ready(())
                } else {
                    Probe::Waiting(Phase::LeaseOfNode { node: holder })
                }
            });
        tokio::select! {
            freed = freed => freed?,
            () = context.out_of_time() => {
                let last = self.attach.cluster.fresh_for(context, lists).await?;
                if let Some(holder) = holder_of(&last, dataset)?.filter(|holder| *holder != self.node) {
                    return Err(self.held_elsewhere(holder, &last));
                }
            }
        }
        Ok(AttemptOutcome::Unblocked)
    }

    /// Returns the error that names the node that holds the lease, and what to do about it.
    fn held_elsewhere(&self, holder: Uuid, seen: &Snapshot) -> Error {
        let Self { dataset, node, .. } = self;
        self.attach.cluster.counters().count(Counter::LeaseConflicts);
        let missing = if seen.lists_node(holder) {
            None
        } else {
            Some(match self.attach.cluster.absence(holder) {
                Absence::Gone => "is gone".to_owned(),
                Absence::Missing { since } => {
                    format!("has not been listed by Flocker for {}", Elapsed(since.elapsed()))
                }
                Absence::Unknown => "is not listed by Flocker".to_owned(),
            })
        };
        let release = end_of_use(*dataset, holder);
        let what_to_do = match (missing, self.attach.takeover) {
            (None, _) => release,
            (Some(missing), Takeover::Never) => format!(
                "that node {missing}, and takeover = never: make certain that it is off, then {release}"
            ),
            (Some(missing), Takeover::NodeGone) => format!(
                "that node {missing}; once it has been missing for takeover_grace, the volume is taken from it: try again"
            ),
        };
        Error::new(
            Situation::HeldElsewhere,
            format!(
                "volume {dataset} cannot be attached to node {}: it is attached to node {}, which holds its \
                 lease; {what_to_do}",
                NamedNode(*node),
                NamedNode(holder)
            ),
        )
    }
}
