//! Leases of this node that are still to be released, according to the records.

use uuid::Uuid;

use super::Host;
use super::evidence::{Staged, mount_table};
use super::lifecycle::{Action, Goal, decide};
use super::records::{Record, RecordState};
use crate::error::Result;

impl Host {
    /// Whether a lease is to be released at this moment: no later staging uses the record, or the lease at another
    /// path or by another plugin of this node. A record whose lease a later staging uses is removed.
    pub(crate) fn is_release_due(&self, staged: &Staged) -> Result<bool> {
        let state = self.state_in(&mount_table()?, staged)?;
        match decide(&state, Goal::Release) {
            Action::ReleaseLease => Ok(true),
            Action::Forget => {
                self.forget(staged);
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// Whether the volume is unmounted and the lease is still to be released.
    pub(crate) fn is_release_pending(&self, staged: &Staged) -> bool {
        let record = self.records.get(staged.dataset, &staged.staging);
        record.is_some_and(|record| record.state == RecordState::ReleasePending)
    }

    /// Returns the node under whose lease a dataset is staged at a path, where a record names it.
    pub(crate) fn recorded_node(&self, staged: &Staged) -> Option<Uuid> {
        self.records.get(staged.dataset, &staged.staging)?.node_id
    }

    /// Whether a lease on a dataset is to be released as soon as that can be done.
    pub(crate) fn has_releases(&self, dataset: Uuid) -> bool {
        !self.releases(dataset).is_empty()
    }

    /// Removes the records by which the lease of `node` on a dataset is to be released, and returns whether there were
    /// any. `is_this_node` says whether records without a node belong to `node`.
    pub(crate) fn abandon_releases(&self, dataset: Uuid, node: Uuid, is_this_node: bool) -> Result<bool> {
        let mut due = self.releases(dataset);
        due.retain(|record| record.node_id.map_or(is_this_node, |of_record| of_record == node));
        for record in &due {
            self.forget_durably(&Staged {
                dataset,
                staging: record.staging_path.clone(),
            })?;
        }
        Ok(!due.is_empty())
    }

    fn releases(&self, dataset: Uuid) -> Vec<Record> {
        let mut records = self.records.of(dataset);
        records.retain(|record| record.state == RecordState::ReleasePending);
        records
    }
}
