//! Watching the conditions of volumes while no client lists them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::list::LISTS;
use super::volume_list::VolumeList;
use super::{ControllerCore, ControllerService};
use crate::error::Result;
use crate::operation::deadline::Deadline;

/// How often the lists are read.
pub(crate) const EVERY: Duration = Duration::from_secs(60);
/// The share of the time in which the lists may be read is one in this many: those of thousands of volumes take seconds.
const LEAST_SHARE: u32 = 100;
/// How long Flocker may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

impl ControllerService {
    /// Logs, until it is dropped, which volumes become abnormal, and healthy again, while no client asks.
    ///
    /// Flocker's lists are read every `every`, more seldom where that takes long, and not at all while clients list the
    /// volumes as often.
    pub async fn watch_conditions(self, every: Duration) {
        let core = self.core;
        let mut pause = every;
        loop {
            sleep(pause).await;
            if let Some(until_due) = pause_after_list(core.conditions.age(), every) {
                pause = until_due;
                continue;
            }
            let began = Instant::now();
            if let Err(error) = look(&core).await {
                // That Flocker does not answer is logged once by what asks it.
                tracing::debug!(error = %error.chain(), "The conditions of volumes cannot be read now");
            }
            pause = pause_after_read(began.elapsed(), every);
        }
    }
}

async fn look(core: &ControllerCore) -> Result<()> {
    let deadline = Deadline::after(PATIENCE);
    let node = core.node_of_scope(deadline).await?;
    let snapshot = core.read(deadline, LISTS).await?;
    core.conditions.listed(&VolumeList::of(&snapshot, node));
    Ok(())
}

/// Returns the pause that a list of that age allows, if it is young enough: a client that lists the volumes is enough.
fn pause_after_list(age: Option<Duration>, every: Duration) -> Option<Duration> {
    every.checked_sub(age?).filter(|pause| !pause.is_zero())
}

fn pause_after_read(took: Duration, every: Duration) -> Duration {
    every.max(took * LEAST_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_a_client_has_read_replaces_a_look() {
        let seconds = Duration::from_secs;
        assert_eq!(pause_after_list(None, EVERY), None);
        assert_eq!(pause_after_list(Some(seconds(20)), EVERY), Some(seconds(40)));
        assert_eq!(pause_after_list(Some(EVERY), EVERY), None);
        assert_eq!(pause_after_list(Some(EVERY * 2), EVERY), None);
    }

    #[test]
    fn long_lists_are_read_a_hundredth_of_the_time() {
        assert_eq!(pause_after_read(Duration::from_millis(5), EVERY), EVERY);
        assert_eq!(
            pause_after_read(Duration::from_secs(3), EVERY),
            Duration::from_secs(300)
        );
    }
}
