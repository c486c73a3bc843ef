//! How often Flocker is asked.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use rand::Rng;

/// The shortest wait between two polls.
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest wait between two polls while Flocker answers.
const LONGEST: Duration = Duration::from_secs(2);
/// The longest first pause after a failure, and the longest of all pauses.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// The part of a wait that chance may take away, so that the plugins of a cluster do not poll in step.
const JITTER: f64 = 0.15;

/// Returns the waits between the polls of one waiter: from `first`, each longer by half, up to 2 s.
pub(super) fn poll_waits(first: Duration) -> impl Iterator<Item = Duration> {
    let longer = |wait: &Duration| Some((*wait * 3 / 2).min(LONGEST));
    std::iter::successors(Some(first.clamp(SHORTEST, LONGEST)), longer).map(|wait| {
        wait.mul_f64(1.0 - rand::rng().random_range(0.0..JITTER))
            .max(SHORTEST)
    })
}

/// Returns the pauses after failures in a row: 0.5 s, then growing to 10 s. Each is between a half and the whole of that, at
/// random.
pub(super) fn failure_pauses() -> ExponentialBackoff {
    let (first, longest) = PAUSES;
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
    fn polls_start_as_early_as_asked_and_slow_down_to_one_in_two_seconds() {
        for (first, expected) in [
            (0, [10, 15, 22, 33, 50, 75, 113, 170]),
            (500, [500, 750, 1125, 1687, 2000, 2000, 2000, 2000]),
            (60_000, [2000; 8]),
        ] {
            let first = Duration::from_millis(first);
            for (wait, expected) in poll_waits(first).zip(expected) {
                // Whole milliseconds are expected, rounded down.
                let (least, most) = (
                    Duration::from_millis(expected).mul_f64(0.85),
                    Duration::from_millis(expected + 1),
                );
                assert!(
                    wait >= least.max(SHORTEST) && wait <= most,
                    "{wait:?} of {most:?}"
                );
            }
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
