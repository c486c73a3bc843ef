//! Checks of request fields that both services make.

use uuid::Uuid;

use crate::error::{Error, Result, Situation};
use crate::volume::dataset_of;

/// Returns the value of a field that must not be empty.
///
/// # Errors
/// [`Situation::InvalidArgument`] naming the field.
pub(crate) fn required<'a>(field: &str, value: &'a str) -> Result<&'a str> {
    if value.is_empty() {
        return Err(Error::new(
            Situation::InvalidArgument,
            format!("{field} is empty: it is required"),
        ));
    }
    Ok(value)
}

/// Returns the dataset with the given volume id; any other string is the id of no volume.
///
/// # Errors
/// [`Situation::UnknownVolume`] for every other string: an orchestrator may ask about another driver's volumes.
pub(crate) fn existing_dataset(volume_id: &str) -> Result<Uuid> {
    dataset_of(volume_id).ok_or_else(|| {
        let text = format!("volume {volume_id:?} does not exist: a volume id is a lower-case UUID");
        Error::new(Situation::UnknownVolume, text)
    })
}
