//! What an operation knows of its callers.

use std::time::Duration;

use tokio::time::Instant;

/// Those who wait for an operation.
#[derive(Clone, Copy)]
pub(super) struct Callers {
    /// How many wait at this moment.
    pub(super) waiting: usize,
    /// The longest time one of them gave, ever.
    pub(super) longest: Duration,
    /// When work that ends with its callers gives up: when the last of them, ever, is about to be answered.
    pub(super) give_up_by: Instant,
}
