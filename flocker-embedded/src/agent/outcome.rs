//! What a step did with a dataset.

use std::fmt;

use uuid::Uuid;

use crate::backend::StepError;

/// A dataset, and what the step did with it or why it failed.
pub(super) type Outcome = (Uuid, Result<Done, StepError>);

/// What a step did with a dataset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Done {
    Created,
    Registered,
    Attached,
    Formatted,
    Mounted,
    Unmounted,
    Detached,
    DetachedFromDead,
    Destroyed,
}

impl fmt::Display for Done {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Created => "Created the volume of",
            Self::Registered => "Recorded the volume of",
            Self::Attached => "Attached",
            Self::Formatted => "Created the file system of",
            Self::Mounted => "Mounted",
            Self::Unmounted => "Unmounted",
            Self::Detached => "Detached",
            Self::DetachedFromDead => "Detached from a machine that is off",
            Self::Destroyed => "Destroyed the volume of",
        })
    }
}
