//! The read that confirms, under the locks of several volumes, what a read without them has shown.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::PATIENCE;
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Lists, Snapshot};
use crate::node::NodeCore;

/// How old that read may be.
const CONFIRMED_FOR: Duration = Duration::from_secs(1);

/// A read that began after several volumes were locked.
#[derive(Default)]
pub(super) struct Confirmation {
    last: Option<(Instant, Arc<Snapshot>)>,
}

impl Confirmation {
    /// Returns the last read, or a new one if that is too old, or does not have these lists.
    pub(super) async fn read(&mut self, core: &NodeCore, lists: Lists) -> Result<Arc<Snapshot>> {
        if let Some((began, snapshot)) = &self.last
            && began.elapsed() < CONFIRMED_FOR
            && snapshot.lists().contains(lists)
        {
            return Ok(Arc::clone(snapshot));
        }
        let began = Instant::now();
        let read = timeout(PATIENCE, core.cluster.fresh(lists)).await;
        let snapshot = read.unwrap_or_else(|_elapsed| {
            Err(Error::new(
                Situation::FlockerUnavailable,
                "Flocker does not answer",
            ))
        })?;
        self.last = Some((began, Arc::clone(&snapshot)));
        Ok(snapshot)
    }
}
