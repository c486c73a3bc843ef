//! The volumes of this node in figures, for metrics.

use std::time::Duration;

use super::NodeService;
use crate::host::VolumeCensus;

/// How long counting may take. The last figures are shown then.
const PATIENCE: Duration = Duration::from_secs(1);
/// After this time a file system counts as one that does not answer, as `NodeGetVolumeStats` has it.
pub(super) const NOT_ANSWERING: Duration = Duration::from_secs(1);

impl NodeService {
    /// Counts the volumes of this node; `None` while the state directory is not open, or where nothing was counted yet.
    pub(crate) async fn census(&self) -> Option<VolumeCensus> {
        // Held while it is being opened, which may take a while.
        let host = self.core.host.try_lock().ok()?.clone()?;
        let not_answering = self.core.usage.not_answering(NOT_ANSWERING);
        let count = move || match host.census(&not_answering) {
            Ok(census) => Some(census),
            Err(error) => {
                tracing::warn!(error = %error.chain(), "The volumes of this node cannot be counted");
                None
            }
        };
        self.core.census.look(PATIENCE, count).await?
    }
}
