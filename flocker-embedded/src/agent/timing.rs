//! How long the agents and the control service wait.

use tokio::time::Duration;

use crate::options::Timing;

/// The first of the delays after rounds that left work to do, how much longer each is than the one before, and the
/// longest of them.
const BACK_OFF: (Duration, u32, Duration) = (Duration::from_millis(100), 4, Duration::from_secs(10));
/// How long a real agent takes to look at what is there: it is a Python program that starts others. With it, datasets
/// are in state, mounted and reported when they were on a real cluster.
const LOOK: Duration = Duration::from_millis(350);
const BATCH: Duration = Duration::from_secs(1);
const ELSEWHERE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(60);
const EXPIRY: Duration = Duration::from_secs(120);

/// The same at full speed, where things have to be waited for all the same.
const FAST_BACK_OFF: (Duration, u32, Duration) = (Duration::from_millis(20), 2, Duration::from_secs(1));
const FAST_ELSEWHERE: Duration = Duration::from_secs(1);

impl Timing {
    /// Returns how long changes are collected before the agents are told.
    pub(super) fn batch(self) -> Option<Duration> {
        self.of_stock(BATCH)
    }

    /// Returns how long it takes an agent to look at what is there, beside what it takes to do so here.
    pub(super) fn look(self) -> Option<Duration> {
        self.of_stock(LOOK)
    }

    /// Returns how long an agent waits after its `attempt`-th round in a row (from 0) that left work to do.
    pub(super) fn back_off(self, attempt: u32) -> Duration {
        let grown = |(first, factor, most): (Duration, u32, Duration)| {
            let delay = factor
                .checked_pow(attempt)
                .and_then(|factor| first.checked_mul(factor));
            delay.map_or(most, |delay| delay.min(most))
        };
        self.of_stock(grown(BACK_OFF))
            .unwrap_or_else(|| grown(FAST_BACK_OFF))
    }

    /// Returns how long an agent waits for another node to give up a dataset before it looks again.
    pub(super) fn elsewhere(self) -> Duration {
        self.of_stock(ELSEWHERE).unwrap_or(FAST_ELSEWHERE)
    }

    /// Returns after what time an agent with nothing to do looks around all the same. At full speed changes of the
    /// mount table wake it, and there is nothing else that could change by itself.
    pub(super) fn idle(self) -> Option<Duration> {
        self.of_stock(IDLE)
    }

    /// Returns how long a node that is silent stays listed.
    pub(crate) fn node_expiry(self) -> Duration {
        self.of_stock(EXPIRY).unwrap_or(EXPIRY)
    }

    /// Returns a delay of Flocker's own as this pace has it; none at full speed.
    fn of_stock(self, delay: Duration) -> Option<Duration> {
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
            .map(|attempt| timing.back_off(attempt).as_millis())
            .collect()
    }

    #[test]
    fn the_stock_pace_has_the_delays_of_flocker() {
        assert_eq!(delays(Timing::Stock), [100, 400, 1_600, 6_400, 10_000, 10_000]);
        assert_eq!(Timing::Stock.back_off(u32::MAX).as_millis(), 10_000);
    }

    #[test]
    fn a_shortened_pace_divides_every_delay() {
        let timing = Timing::Shortened(20);
        assert_eq!(delays(timing), [5, 20, 80, 320, 500, 500]);
        let others = [
            timing.batch(),
            timing.look(),
            Some(timing.elsewhere()),
            timing.idle(),
            Some(timing.node_expiry()),
        ];
        let others = others.map(|delay| delay.unwrap().as_micros());
        assert_eq!(others, [50_000, 17_500, 150_000, 3_000_000, 6_000_000]);
    }

    #[test]
    fn at_full_speed_retries_slow_down_to_one_a_second() {
        assert_eq!(Timing::Instant.back_off(0).as_millis(), 20);
        assert_eq!(Timing::Instant.back_off(1_000).as_millis(), 1_000);
    }
}
