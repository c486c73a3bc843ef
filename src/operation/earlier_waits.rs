//! What operations waited for that ended without success: the next call for the same continues to wait, so it says since
//! when, although there was no operation in between.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::progress::Wait;

/// How long after its end an operation is still one with the next one for the same.
const CONTINUES_WITHIN: Duration = Duration::from_secs(300);
/// How many are remembered.
const MOST: usize = 64;

/// The waits of operations that have ended, the newest last.
#[derive(Debug)]
pub(super) struct EarlierWaits<O>(VecDeque<(O, Wait, Instant)>);

impl<O> Default for EarlierWaits<O> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<O: PartialEq> EarlierWaits<O> {
    /// Remembers the wait in which an operation ended.
    pub(super) fn ended(&mut self, operation: O, wait: Wait, now: Instant) {
        self.take(&operation, now);
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((operation, wait, now));
    }

    /// Returns the wait that a new operation continues, if it does.
    pub(super) fn take(&mut self, operation: &O, now: Instant) -> Option<Wait> {
        self.0
            .retain(|(_, _, ended)| now.duration_since(*ended) <= CONTINUES_WITHIN);
        let place = self.0.iter().position(|(earlier, _, _)| earlier == operation)?;
        self.0.remove(place).map(|(_, wait, _)| wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Phase;

    #[tokio::test(start_paused = true)]
    async fn few_waits_are_remembered_and_none_for_long() {
        let now = Instant::now();
        let mut waits = EarlierWaits::default();
        let wait = || Wait {
            phase: Phase::Caller,
            since: now,
        };
        for operation in 0..10 * MOST {
            waits.ended(operation, wait(), now);
            waits.ended(operation, wait(), now);
        }
        assert_eq!(waits.0.len(), MOST);
        assert_eq!(waits.take(&0, now), None);
        let last = 10 * MOST - 1;
        assert_eq!(waits.take(&last, now), Some(wait()));
        assert_eq!(waits.take(&last, now), None, "it is the new operation's now");
        assert_eq!(waits.take(&(last - 1), now + CONTINUES_WITHIN * 2), None);
    }
}
