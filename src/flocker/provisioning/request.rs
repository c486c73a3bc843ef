//! The requested volume, and the existing one.

use std::fmt;

use uuid::Uuid;

use crate::volume::{Parameters, SizeRange, VolumeName};

/// A requested volume.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NewVolume {
    /// Its name, from which its id is derived.
    pub name: VolumeName,
    /// The sizes that the request accepts.
    pub range: SizeRange,
    /// The size in bytes of a new volume, chosen within `range`.
    pub size: u64,
    /// Its profile and metadata.
    pub parameters: Parameters,
}

/// A volume that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Its dataset.
    pub dataset: Uuid,
    /// Its size in bytes, according to Flocker's configuration.
    pub size: u64,
}

impl fmt::Display for NewVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "creating volume {:?}", self.name.as_str())
    }
}

/// Where a dataset is that has to be backed, as far as is known before the wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    /// Its configured primary.
    pub(super) primary: Uuid,
    /// Whether that node was listed.
    pub(super) listed: bool,
    /// Whether Flocker has just stored it.
    pub(super) new: bool,
}
