//! What an attachment does, and what its caller is answered, when another node holds the lease.

use uuid::Uuid;

use super::{Attachment, AttemptOutcome, OtherNodesLease, Takeover, holder_of};
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Absence, FirstRead, Lists, Probe, Snapshot};
use crate::operation::{Elapsed, Phase};
use crate::telemetry::Counter;

impl Attachment<'_> {
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
        let what_to_do = match (missing, self.attach.takeover) {
            (None, _) => "unpublish it there first".to_owned(),
            (Some(missing), Takeover::Never) => format!(
                "that node {missing}; if it is certainly off, unpublish the volume from it (takeover = never)"
            ),
            (Some(missing), Takeover::NodeGone) => format!(
                "that node {missing}; once it has been missing for takeover_grace, the volume is taken from it: try again"
            ),
        };
        Error::new(
            Situation::HeldElsewhere,
            format!(
                "volume {dataset} cannot be attached to node {node}: it is attached to node {holder}, which holds its \
                 lease; {what_to_do}"
            ),
        )
    }
}
