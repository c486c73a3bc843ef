//! Measured durations, and how they are printed.

use tokio::time::Duration;

/// Durations of many repetitions.
#[derive(Default)]
pub(crate) struct Samples {
    durations: Vec<Duration>,
}

impl Samples {
    pub(crate) fn add(&mut self, duration: Duration) {
        let place = self.durations.partition_point(|other| *other <= duration);
        self.durations.insert(place, duration);
    }

    /// Adds all of `more`.
    pub(crate) fn extend_with(&mut self, more: Self) {
        self.extend(more.durations);
    }

    pub(crate) fn p50(&self) -> Duration {
        self.quantile(1, 2)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.quantile(99, 100)
    }

    pub(crate) fn min(&self) -> Duration {
        self.durations.first().copied().unwrap_or_default()
    }

    pub(crate) fn max(&self) -> Duration {
        self.durations.last().copied().unwrap_or_default()
    }

    pub(crate) fn count(&self) -> usize {
        self.durations.len()
    }

    /// Returns the smallest duration that at least the given part of all samples does not exceed.
    fn quantile(&self, numerator: usize, denominator: usize) -> Duration {
        let rank = (self.durations.len() * numerator).div_ceil(denominator);
        self.durations
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }
}

impl Extend<Duration> for Samples {
    fn extend<I: IntoIterator<Item = Duration>>(&mut self, durations: I) {
        self.durations.extend(durations);
        self.durations.sort_unstable();
    }
}

/// Returns `duration` divided by `base`.
pub(crate) fn ratio(duration: Duration, base: Duration) -> f64 {
    duration.as_secs_f64() / base.as_secs_f64()
}

/// Writes a duration with three significant digits.
pub(crate) fn time(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    match micros {
        ..1e3 => format!("{} µs", digits(micros)),
        ..1e6 => format!("{} ms", digits(micros / 1e3)),
        _ => format!("{} s", digits(micros / 1e6)),
    }
}

/// Writes a number below a thousand with three significant digits, a larger one without a fraction.
pub(crate) fn digits(number: f64) -> String {
    match number.abs() {
        ..10.0 => format!("{number:.2}"),
        ..100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}
