//! The volume that is asked for, and the one that is there.

use std::fmt;

use uuid::Uuid;

use crate::volume::{Parameters, SizeRange, VolumeName};

/// A volume that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct NewVolume {
    /// Its name, from which its id is derived.
    pub name: VolumeName,
    /// The sizes that will do.
    pub range: SizeRange,
    /// The size it gets if it has to be made, chosen within `range`, in bytes.
    pub size: u64,
    /// Its profile and metadata.
    pub parameters: Parameters,
}

/// A volume that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its dataset.
    pub dataset: Uuid,
    /// Its size in bytes, as Flocker's configuration has it.
    pub size: u64,
}

impl fmt::Display for NewVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "creating volume {:?}", self.name.as_str())
    }
}
