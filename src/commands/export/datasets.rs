//! The datasets that Flocker has.

use flocker_client::Dataset;
use uuid::Uuid;

use super::volume::join;
use crate::commands::connection::connect;
use crate::commands::failure::Failure;
use crate::config::FlockerConfig;
use crate::flocker::cluster::{Lists, Snapshot};
use crate::volume::{size_of, size_text};

/// Reads everything that Flocker reports about datasets.
///
/// # Errors
/// The certificates cannot be used, or Flocker does not answer.
pub(super) async fn look(config: &FlockerConfig) -> Result<std::sync::Arc<Snapshot>, Failure> {
    // Export does not use the state of any node.
    let cluster = connect(config, std::time::Duration::MAX).await?;
    let lists = Lists::CONFIGURATION | Lists::STATE | Lists::LEASES;
    cluster.fresh(lists).await.map_err(|error| Failure::of(&error))
}

/// The datasets that Flocker reports.
pub(super) struct Datasets<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// Whether datasets that are in use are exported.
    pub(super) allow_leased: bool,
}

impl<'a> Datasets<'a> {
    /// Finds a dataset that is not deleted.
    ///
    /// # Errors
    /// No such dataset exists.
    pub(super) fn by_id(&self, id: Uuid) -> Result<&'a Dataset, String> {
        match self.snapshot.dataset(id).map_err(|error| error.chain())? {
            Some(dataset) if dataset.deleted => Err(format!("dataset {id} has been deleted")),
            Some(dataset) => Ok(dataset),
            None => Err(format!(
                "dataset {id} does not exist: is control_service the Flocker that the volume is in?"
            )),
        }
    }

    /// Finds the one dataset that is not deleted and has a name in its metadata, under the first of `keys` that has one.
    ///
    /// # Errors
    /// No such dataset exists, or several do.
    pub(super) fn by_name(&self, keys: &[&str], name: &str) -> Result<&'a Dataset, String> {
        for key in keys {
            let found = self.snapshot.live_datasets_with(key, name);
            match found.as_slice() {
                [] => {}
                [one] => return Ok(one),
                several => {
                    return Err(format!(
                        "{} datasets have {key} {name:?} in their metadata: {}; give the id of one of them",
                        several.len(),
                        join(several.iter().map(|dataset| dataset.dataset_id))
                    ));
                }
            }
        }
        Err(format!(
            "no dataset has {} {name:?} in its metadata: is control_service the Flocker that the volume is in?",
            keys.join(" or ")
        ))
    }

    /// Checks that no node is known to use a dataset; where export of such a dataset is allowed, returns a remark.
    ///
    /// # Errors
    /// A node holds the lease.
    pub(super) fn unused(&self, dataset: &Dataset) -> Result<Option<String>, String> {
        let id = dataset.dataset_id;
        let used = match self.snapshot.lease(id) {
            Ok(None) => return Ok(None),
            Ok(Some(lease)) => {
                let holder = lease.node_uuid;
                format!("dataset {id} is in use: node {holder} holds the lease on it")
            }
            Err(unreadable) => unreadable.chain(),
        };
        if self.allow_leased {
            Ok(Some(used))
        } else {
            Err(format!(
                "{used}; stop what uses it, or export it anyway with --allow-leased"
            ))
        }
    }

    /// Returns the size of a dataset in bytes, with a remark if Flocker does not report it.
    pub(super) fn size(&self, dataset: &Dataset) -> (u64, Option<String>) {
        let id = dataset.dataset_id;
        let reported = self
            .snapshot
            .states(id)
            .iter()
            .find_map(|state| state.maximum_size);
        let size = size_of(dataset.maximum_size, reported);
        let known = dataset.maximum_size.or(reported).is_some();
        let remark = (!known).then(|| {
            format!(
                "Flocker does not report the size of dataset {id}: export assumes {}, the size of a dataset that is created \
                     without one",
                size_text(size)
            )
        });
        (size, remark)
    }
}
