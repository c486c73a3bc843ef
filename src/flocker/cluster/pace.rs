//! How often Flocker is asked.

use std::time::Duration;

use rand::Rng;

/// The first wait between two looks, and the first pause after a failure.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait while Flocker answers.
const LONGEST: Duration = Duration::from_secs(2);
/// The longest pause while it does not.
const LONGEST_DOWN: Duration = Duration::from_secs(10);

/// The waits of one waiter: 0.5 s first, then growing to 2 s, with jitter so that the plugins of a cluster do not
/// ask in step.
#[derive(Debug, Default)]
pub(super) struct Pace {
    looks: u32,
}

impl Pace {
    /// Returns the time until the next look.
    pub(super) fn next(&mut self) -> Duration {
        let wait = doubled(self.looks, LONGEST);
        let first = self.looks == 0;
        self.looks += 1;
        if first { wait } else { jittered(wait) }
    }
}

/// The pauses of a process whose requests fail: 0.5 s first, then growing to 10 s, with jitter.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
}

impl BackOff {
    /// Takes in a failure and returns the pause after it.
    pub(super) fn failed(&mut self) -> Duration {
        let pause = doubled(self.failures, LONGEST_DOWN);
        self.failures += 1;
        jittered(pause)
    }

    /// Takes in a success and tells whether it was the first one after a failure.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

fn doubled(times: u32, longest: Duration) -> Duration {
    (FIRST * 2u32.saturating_pow(times.min(8))).min(longest)
}

/// Returns between a half and the whole of it.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_look_comes_after_half_a_second_and_the_later_ones_within_two() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(), FIRST);
        for _ in 0..20 {
            let wait = pace.next();
            assert!(wait >= FIRST / 2 && wait <= LONGEST, "{wait:?}");
        }
    }

    #[test]
    fn pauses_grow_with_each_failure_in_a_row_and_start_over_after_a_success() {
        let mut back_off = BackOff::default();
        for expected in [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000].map(Duration::from_millis) {
            let pause = back_off.failed();
            assert!(
                pause >= expected / 2 && pause <= expected,
                "{pause:?} of {expected:?}"
            );
        }
        assert!(back_off.succeeded() && !back_off.succeeded());
        assert!(back_off.failed() <= FIRST);
    }
}
