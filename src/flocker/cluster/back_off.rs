//! How often Flocker is asked.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The first wait between two polls, and the longest first pause after a failure.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait between two polls while Flocker answers.
const LONGEST: Duration = Duration::from_secs(2);
/// The longest pause while it does not.
const LONGEST_DOWN: Duration = Duration::from_secs(10);

/// Returns the waits between the polls of one waiter: 0.5 s, then growing to 2 s.
pub(super) fn poll_waits() -> impl Iterator<Item = Duration> {
    std::iter::once(FIRST).chain(growing(FIRST * 2, LONGEST))
}

/// Returns the pauses after failures in a row: 0.5 s, then growing to 10 s.
pub(super) fn failure_pauses() -> ExponentialBackoff {
    growing(FIRST, LONGEST_DOWN)
}

/// Doubles from `first` to `longest`. Each duration is between a half and the whole of that, at random, so that the
/// plugins of a cluster do not poll in step.
fn growing(first: Duration, longest: Duration) -> ExponentialBackoff {
    // The jitter comes on top of a delay, and is as long as the delay at most.
    ExponentialBuilder::default()
        .with_min_delay(first / 2)
        .with_max_delay(longest / 2)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_poll_comes_after_half_a_second_and_the_later_ones_within_two() {
        let mut waits = poll_waits();
        assert_eq!(waits.next(), Some(FIRST));
        for wait in waits.take(20) {
            assert!(wait >= FIRST && wait <= LONGEST, "{wait:?}");
        }
    }

    #[test]
    fn pauses_grow_with_each_failure_in_a_row() {
        let expected = [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000].map(Duration::from_millis);
        for (pause, expected) in failure_pauses().zip(expected) {
            assert!(
                pause >= expected / 2 && pause <= expected,
                "{pause:?} of {expected:?}"
            );
        }
    }
}
