//! When a caller has to be answered.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// The longest time that a caller waits. Mesos stops waiting after 60 s in any case.
const LONGEST: Duration = Duration::from_secs(50);
/// The longest time reserved for undoing work that no caller waits for any more.
const UNDOING: Duration = Duration::from_secs(2);

/// The moment at which a caller is answered, whether or not the work is finished, and the whole time until then.
///
/// It comes before the caller's own deadline, so that the caller receives what the work waits for instead of its own
/// "deadline exceeded".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    answer_by: Instant,
    budget: Duration,
}

impl Deadline {
    /// Returns the deadline that is `budget` from now.
    pub(crate) fn after(budget: Duration) -> Self {
        Self {
            answer_by: Instant::now() + budget,
            budget,
        }
    }

    /// Reads the deadline from a call's `grpc-timeout`.
    ///
    /// The answer is due after half the timeout or half a second before its end, whichever is later, and after
    /// 50 s at most. A header that is missing or malformed means no timeout.
    pub(crate) fn from_metadata(metadata: &MetadataMap) -> Self {
        let timeout = metadata
            .get("grpc-timeout")
            .and_then(|value| value.to_str().ok())
            .and_then(parse_timeout);
        let budget = timeout.map_or(LONGEST, |timeout| {
            (timeout / 2)
                .max(timeout.saturating_sub(Duration::from_millis(500)))
                .min(LONGEST)
        });
        Self::after(budget)
    }

    /// Returns the moment at which the answer is due.
    pub(crate) fn answer_by(self) -> Instant {
        self.answer_by
    }

    /// Returns the moment at which work that ends with its caller has to stop, so that it is undone before the answer.
    pub(super) fn stop_work_by(self) -> Instant {
        self.answer_by - UNDOING.min(self.budget / 4)
    }

    /// Returns the time from the call to its answer.
    pub(crate) fn budget(self) -> Duration {
        self.budget
    }
}

/// Parses a `grpc-timeout` value: at most eight digits and a unit, as the gRPC over HTTP/2 protocol defines it.
fn parse_timeout(value: &str) -> Option<Duration> {
    let unit = value.chars().next_back()?;
    let digits = value.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(count * 3600)),
        'M' => Some(Duration::from_secs(count * 60)),
        'S' => Some(Duration::from_secs(count)),
        'm' => Some(Duration::from_millis(count)),
        'u' => Some(Duration::from_micros(count)),
        'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(value: &str) -> Duration {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", value.parse().unwrap());
        Deadline::from_metadata(&metadata).budget()
    }

    #[test]
    fn the_answer_comes_before_the_timeout_of_the_caller() {
        assert_eq!(budget("10S"), Duration::from_millis(9500));
        assert_eq!(budget("600m"), Duration::from_millis(300));
        assert_eq!(budget("9997133u"), Duration::from_micros(9_497_133));
    }

    #[test]
    fn no_caller_waits_for_more_than_fifty_seconds() {
        assert_eq!(budget("1M"), LONGEST);
        assert_eq!(budget("99999999H"), LONGEST);
        assert_eq!(Deadline::from_metadata(&MetadataMap::new()).budget(), LONGEST);
    }

    #[test]
    fn a_malformed_timeout_is_no_timeout() {
        for value in ["", "S", "1", "-1S", "123456789S", "1x", "1.5S", "é"] {
            assert_eq!(parse_timeout(value), None, "{value}");
        }
    }
}
