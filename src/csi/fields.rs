//! Checks of request fields that both services make.

use tracing::Span;
use uuid::Uuid;

use crate::error::{Error, Result, Situation};
use crate::telemetry::record;
use crate::volume::dataset_of;

/// The maximum length of a field in bytes: that of a path. Every field of CSI is shorter.
const LONGEST: usize = 4095;

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
    if value.len() > LONGEST {
        return Err(Error::new(
            Situation::InvalidArgument,
            format!(
                "{field} has {} bytes, at most {LONGEST} bytes are allowed",
                value.len()
            ),
        ));
    }
    Ok(value)
}

/// Returns the id of a volume, which must not be empty, and records it for every line of the log about the call.
///
/// # Errors
/// [`Situation::InvalidArgument`] naming the field.
pub(crate) fn volume_id(value: &str) -> Result<&str> {
    let id = required("volume_id", value)?;
    record(&Span::current(), "volume.id", id);
    Ok(id)
}

/// As [`volume_id`], of a node.
///
/// # Errors
/// [`Situation::InvalidArgument`] naming the field.
pub(crate) fn node_id(value: &str) -> Result<&str> {
    let id = required("node_id", value)?;
    record(&Span::current(), "node.id", id);
    Ok(id)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_neither_empty_nor_longer_than_a_path() {
        required("volume_id", &"v".repeat(LONGEST)).unwrap();
        for value in [String::new(), "v".repeat(LONGEST + 1)] {
            let refused = required("volume_id", &value).unwrap_err();
            assert_eq!(refused.situation(), Situation::InvalidArgument);
            assert!(refused.chain().starts_with("volume_id "), "{}", refused.chain());
        }
    }
}
