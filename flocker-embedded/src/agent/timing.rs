//! How long the agents and the control service wait.

use tokio::time::Duration;

use crate::options::Timing;

/// The first delay after iterations that left steps to do, the factor from each to the next, and the longest.
const BACK_OFF: (Duration, u32, Duration) = (Duration::from_millis(100), 4, Duration::from_secs(10));
/// How long a real agent takes to observe its datasets: it is a Python program that runs other programs. With this
/// delay, datasets appear in state, are mounted and are reported at the times measured on a real cluster.
const OBSERVATION: Duration = Duration::from_millis(350);
const BATCH: Duration = Duration::from_secs(1);
const OTHER_NODE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(60);
const EXPIRY: Duration = Duration::from_secs(120);

/// The first and the longest delay without those of Flocker, where only retries wait; each is half as long again as the one
/// before.
const INSTANT_BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Without the delays of Flocker, a retry waits at least so many times as long as it takes to observe.
const INSTANT_REST: u32 = 9;
const INSTANT_OTHER_NODE: Duration = Duration::from_secs(1);

impl Timing {
    /// Returns how long changes are collected before the agents receive them.
    pub(super) fn batch(self) -> Option<Duration> {
        self.of_stock(BATCH)
    }

    /// Returns how long an agent takes to observe, in addition to the time it takes here.
    pub(super) fn observation(self) -> Option<Duration> {
        self.of_stock(OBSERVATION)
    }

    /// Returns how long an agent waits after its `attempt`-th consecutive iteration (from 0) that left steps to do, and that
    /// took so long to observe.
    pub(super) fn back_off(self, attempt: u32, observation: Duration) -> Duration {
        let (first, factor, longest) = BACK_OFF;
        let delay = factor
            .checked_pow(attempt)
            .and_then(|factor| first.checked_mul(factor));
        let delay = delay.map_or(longest, |delay| delay.min(longest));
        self.of_stock(delay).unwrap_or_else(|| {
            let (first, longest) = INSTANT_BACK_OFF;
            // Long before that many it is the longest.
            let grown = (0..attempt.min(32)).fold(first, |delay, _| (delay * 3 / 2).min(longest));
            grown.max(observation * INSTANT_REST)
        })
    }

    /// Returns how long an agent waits for another node to detach a dataset before it observes again.
    pub(super) fn other_node(self) -> Duration {
        self.of_stock(OTHER_NODE).unwrap_or(INSTANT_OTHER_NODE)
    }

    /// Returns how long an agent without steps waits until it observes again. Without delays, changes of the mount
    /// table wake it, and nothing else changes by itself.
    pub(super) fn idle(self) -> Option<Duration> {
        self.of_stock(IDLE)
    }

    /// Returns how long a silent node stays listed.
    pub(crate) fn node_expiry(self) -> Duration {
        self.of_stock(EXPIRY).unwrap_or(EXPIRY)
    }

    /// Returns one of Flocker's own delays at this timing, if it has any.
    pub(crate) fn of_stock(self, delay: Duration) -> Option<Duration> {
        match self {
            Self::Instant => None,
            Self::Stock => Some(delay),
            Self::Shortened(factor) => Some(delay / factor.max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(timing: Timing) -> Vec<u128> {
        (0..6)
            .map(|attempt| timing.back_off(attempt, Duration::ZERO).as_millis())
            .collect()
    }

    #[test]
    fn the_stock_timing_has_the_delays_of_flocker() {
        assert_eq!(delays(Timing::Stock), [100, 400, 1_600, 6_400, 10_000, 10_000]);
        assert_eq!(Timing::Stock.back_off(u32::MAX, OBSERVATION).as_millis(), 10_000);
    }

    #[test]
    fn a_shortened_timing_divides_every_delay() {
        let timing = Timing::Shortened(20);
        assert_eq!(delays(timing), [5, 20, 80, 320, 500, 500]);
        let others = [
            timing.batch(),
            timing.observation(),
            Some(timing.other_node()),
            timing.idle(),
            Some(timing.node_expiry()),
        ];
        let others = others.map(|delay| delay.unwrap().as_micros());
        assert_eq!(others, [50_000, 17_500, 150_000, 3_000_000, 6_000_000]);
    }

    #[test]
    fn without_delays_an_agent_that_retries_observes_for_a_tenth_of_the_time_at_most() {
        for (observation, expected) in [(1, 10), (5, 45), (300, 2_700)] {
            let observation = Duration::from_millis(observation);
            assert_eq!(Timing::Instant.back_off(0, observation).as_millis(), expected);
            assert!(Timing::Instant.back_off(1_000, observation) >= observation * INSTANT_REST);
        }
        assert_eq!(Timing::Stock.back_off(0, Duration::from_secs(9)).as_millis(), 100);
    }

    #[test]
    fn without_delays_retries_slow_down_to_one_a_second() {
        assert_eq!(delays(Timing::Instant), [10, 15, 22, 33, 50, 75]);
        assert_eq!(Timing::Instant.back_off(1_000, Duration::ZERO).as_millis(), 1_000);
    }
}
