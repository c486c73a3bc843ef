//! Sizes in text form.

/// The reason why a text is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SizeError {
    /// It is not a number with one of the units.
    #[error("expected a size such as 10GiB, 512MiB or 1073741824 (units: B, KiB, MiB, GiB, TiB, PiB)")]
    Malformed,
    /// It is a number with a decimal unit.
    #[error("expected a binary unit ({unit}): {given} could mean either")]
    Decimal {
        /// The unit in the text.
        given: &'static str,
        /// The binary unit that was probably meant.
        unit: &'static str,
    },
    /// It is more than 2^63 - 1 bytes.
    #[error("expected a size of less than 8 EiB")]
    TooLarge,
}

const BINARY: [(&str, u32); 5] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("PiB", 50)];
const DECIMAL: [(&str, &str); 5] = [
    ("KB", "KiB"),
    ("MB", "MiB"),
    ("GB", "GiB"),
    ("TB", "TiB"),
    ("PB", "PiB"),
];

/// Parses a whole number of bytes, or of a binary unit: `10GiB`, `512 MiB`, `1073741824`.
///
/// A decimal unit is refused: many people who write `10G` mean 10 GiB.
///
/// # Errors
/// The text is no such number, or stands for more bytes than CSI can express.
pub(crate) fn parse_size(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(SizeError::Malformed);
    }
    let unit = unit.trim_start();
    let shift = if unit.is_empty() || unit == "B" {
        0
    } else if let Some((_, shift)) = BINARY.iter().find(|(name, _)| *name == unit) {
        *shift
    } else {
        let decimal = |(name, _): &&(&'static str, &'static str)| {
            name.eq_ignore_ascii_case(unit) || name.trim_end_matches('B').eq_ignore_ascii_case(unit)
        };
        return Err(match DECIMAL.iter().find(decimal) {
            Some((given, unit)) => SizeError::Decimal { given, unit },
            None => SizeError::Malformed,
        });
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(1 << shift))
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or(SizeError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_of_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1073741824", 1 << 30),
            ("512B", 512),
            ("1KiB", 1 << 10),
            ("1MiB", 1 << 20),
            ("10GiB", 10 << 30),
            (" 10 GiB ", 10 << 30),
            ("2TiB", 2 << 40),
            ("8191PiB", 8191 << 50),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn ambiguous_sizes_are_refused() {
        for text in ["", "GiB", "-1", "1.5GiB", "10 gigs", "10gib", "0x10", "ten"] {
            assert_eq!(parse_size(text), Err(SizeError::Malformed), "{text}");
        }
        for text in ["10GB", "10G", "10g", "10gb"] {
            let error = parse_size(text).unwrap_err();
            assert_eq!(
                error,
                SizeError::Decimal {
                    given: "GB",
                    unit: "GiB"
                },
                "{text}"
            );
        }
        for text in ["8192PiB", "9223372036854775808", "99999999999999999999999"] {
            assert_eq!(parse_size(text), Err(SizeError::TooLarge), "{text}");
        }
    }
}
