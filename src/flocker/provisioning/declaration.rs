//! The request that declares a new volume's dataset.

use flocker_client::NewDataset;

use super::request::{NewVolume, Volume};
use super::reservations::ReservationGuard;
use super::settings::ProvisioningSettings;
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Cluster, CreateOutcome};
use crate::volume::{Generation, metadata};

/// The outcome of requesting a dataset.
pub(super) enum Declared {
    Stored(Volume),
    /// The id is in use, by whatever dataset: only a list shows by which.
    IdTaken,
    /// The id is that of a deleted dataset.
    IdOfDeleted {
        /// The first generation that may not be deleted.
        next: Generation,
        /// Whether the one before is known to be the last deleted one.
        is_last: bool,
    },
}

/// Requests the dataset from Flocker.
pub(super) async fn declare(
    (cluster, settings): (&Cluster, &ProvisioningSettings),
    wanted: &NewVolume,
    reserved: &ReservationGuard,
    generation: Generation,
) -> Result<Declared> {
    let (driver, name) = (&settings.driver_name, &wanted.name);
    let new = NewDataset {
        dataset_id: Some(reserved.dataset),
        primary: reserved.primary,
        maximum_size: Some(wanted.size),
        metadata: metadata(driver, name, generation, &wanted.parameters)?,
    };
    match cluster.create_dataset(&new).await? {
        CreateOutcome::Created(dataset) => {
            tracing::info!(
                volume.id = %reserved.dataset,
                node.id = %reserved.primary,
                "Dataset {} was declared for volume {:?} on node {}",
                reserved.dataset,
                name.as_str(),
                reserved.primary
            );
            Ok(Declared::Stored(Volume {
                dataset: reserved.dataset,
                size: dataset.maximum_size.unwrap_or(wanted.size),
            }))
        }
        CreateOutcome::IdTaken => Ok(Declared::IdTaken),
        CreateOutcome::IdOfDeleted(highest) => {
            // One of another namespace says nothing of this one.
            let last = highest
                .and_then(|highest| {
                    Some((Generation::try_from(highest.generation).ok()?, highest.dataset_id))
                })
                .filter(|(last, id)| settings.namespace.dataset_id(name, *last) == *id)
                .map(|(last, _)| last);
            let next = last.unwrap_or(generation).max(generation).checked_add(1);
            next.map_or_else(
                || {
                    Err(Error::new(
                        Situation::FlockerUnavailable,
                        format!("{wanted}: all ids of the name are used"),
                    ))
                },
                |next| {
                    Ok(Declared::IdOfDeleted {
                        next,
                        is_last: last.is_some(),
                    })
                },
            )
        }
    }
}
