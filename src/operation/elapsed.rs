//! Durations in messages.

use std::fmt;
use std::time::Duration;

/// A duration as people read it: `9.3 s`, `4 min 12 s`, `2 h 5 min`.
pub(crate) struct Elapsed(pub(crate) Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 3600, seconds / 60 % 60) {
            (0, 0) => write!(f, "{seconds}.{} s", self.0.subsec_millis() / 100),
            (0, minutes) => write!(f, "{minutes} min {} s", seconds % 60),
            (hours, minutes) => write!(f, "{hours} h {minutes} min"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_at_most_two_units() {
        for (milliseconds, text) in [
            (0, "0.0 s"),
            (9_349, "9.3 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min 0 s"),
            (252_300, "4 min 12 s"),
            (7_530_000, "2 h 5 min"),
        ] {
            assert_eq!(Elapsed(Duration::from_millis(milliseconds)).to_string(), text);
        }
    }
}
