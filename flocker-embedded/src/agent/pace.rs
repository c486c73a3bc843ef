//! How long the agents and the control service wait.

use tokio::time::Duration;

use crate::options::Pace;

/// How long an agent waits for another node to give up a dataset before it looks again.
pub(super) const ELSEWHERE: Duration = Duration::from_secs(3);

impl Pace {
    /// Returns how long changes are collected before the agents are told.
    pub(super) fn batch(self) -> Option<Duration> {
        match self {
            Self::Instant => None,
            Self::Stock => Some(Duration::from_secs(1)),
        }
    }

    /// Returns how long an agent waits after its `attempt`-th round in a row (from 0) that left work to do.
    pub(super) fn back_off(self, attempt: u32) -> Duration {
        match self {
            Self::Instant => Duration::from_millis(20 << attempt.min(6)).min(Duration::from_secs(1)),
            Self::Stock => Duration::from_millis(100 << (2 * attempt.min(4))).min(Duration::from_secs(10)),
        }
    }

    /// Returns after what time an agent with nothing to do looks around all the same.
    pub(super) fn idle(self) -> Option<Duration> {
        match self {
            // Changes of the mount table wake it, and there is nothing else that could change by itself.
            Self::Instant => None,
            Self::Stock => Some(Duration::from_secs(60)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_pace_has_the_delays_of_flocker() {
        let delays: Vec<_> = (0..6)
            .map(|attempt| Pace::Stock.back_off(attempt).as_millis())
            .collect();
        assert_eq!(delays, [100, 400, 1_600, 6_400, 10_000, 10_000]);
    }

    #[test]
    fn at_full_speed_retries_slow_down_to_one_a_second() {
        assert_eq!(Pace::Instant.back_off(0).as_millis(), 20);
        assert_eq!(Pace::Instant.back_off(1_000).as_millis(), 1_000);
    }
}
