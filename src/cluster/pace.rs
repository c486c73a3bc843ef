//! How often somebody who waits looks again.

use std::time::Duration;

use rand::Rng;

/// The first wait between two looks.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait while Flocker answers.
const LONGEST: Duration = Duration::from_secs(2);
/// The longest wait while it does not.
const LONGEST_DOWN: Duration = Duration::from_secs(10);

/// The waits of one waiter: 0.5 s first, then growing to 2 s, or to 10 s while Flocker is down, with jitter so
/// that the plugins of a cluster do not ask in step.
#[derive(Debug, Default)]
pub(super) struct Pace {
    looks: u32,
    failures: u32,
}

impl Pace {
    /// Returns the time until the next look.
    pub(super) fn next(&mut self, answered: bool) -> Duration {
        self.failures = if answered { 0 } else { self.failures + 1 };
        let wait = if self.looks == 0 && answered {
            FIRST
        } else if answered {
            (FIRST * 2u32.saturating_pow(self.looks.min(8))).min(LONGEST)
        } else {
            (FIRST * 2u32.saturating_pow(self.failures.min(8))).min(LONGEST_DOWN)
        };
        let first = self.looks == 0;
        self.looks += 1;
        if first {
            wait
        } else {
            wait.mul_f64(rand::rng().random_range(0.5..=1.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_look_comes_after_half_a_second_and_the_later_ones_within_two() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(true), FIRST);
        for _ in 0..20 {
            let wait = pace.next(true);
            assert!(wait >= FIRST / 2 && wait <= LONGEST, "{wait:?}");
        }
    }

    #[test]
    fn a_flocker_that_is_down_is_asked_less_and_less() {
        let mut pace = Pace::default();
        let waits: Vec<_> = (0..10).map(|_| pace.next(false)).collect();
        assert!(
            waits[9] >= LONGEST_DOWN / 2 && waits[9] <= LONGEST_DOWN,
            "{waits:?}"
        );
        assert!(pace.next(true) <= LONGEST);
    }
}
