//! Which size a volume gets.

use crate::error::{Error, Result, Situation};

/// The smallest dataset that Flocker makes: 64 MiB.
pub const MINIMUM_SIZE: u64 = 64 << 20;

/// Flocker requires every size to be a multiple of this many bytes.
const GRANULE: u64 = 1024;

/// The sizes that a caller accepts, in bytes; both ends are included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SizeRange {
    required: Option<u64>,
    limit: Option<u64>,
}

impl SizeRange {
    /// Checks CSI's `required_bytes` and `limit_bytes`, where 0 means unset.
    ///
    /// # Errors
    /// [`Situation::InvalidArgument`] for a negative value, [`Situation::ImpossibleSize`] for a range that
    /// contains no size at all or only sizes below Flocker's minimum.
    pub(crate) fn parse(required_bytes: i64, limit_bytes: i64) -> Result<Self> {
        let bytes = |field: &str, value: i64| {
            u64::try_from(value)
                .map(|value| (value > 0).then_some(value))
                .map_err(|_| {
                    let text = format!("capacity_range.{field} is {value}: a size cannot be negative");
                    Error::new(Situation::InvalidArgument, text)
                })
        };
        let range = Self {
            required: bytes("required_bytes", required_bytes)?,
            limit: bytes("limit_bytes", limit_bytes)?,
        };
        let impossible = |text: String| Err(Error::new(Situation::ImpossibleSize, text));
        match (range.required, range.limit) {
            (Some(required), Some(limit)) if limit < required => impossible(format!(
                "capacity_range.limit_bytes {limit} is less than capacity_range.required_bytes {required}"
            )),
            (_, Some(limit)) if limit < MINIMUM_SIZE => impossible(format!(
                "capacity_range.limit_bytes {limit} is below {MINIMUM_SIZE} (64 MiB), the smallest Flocker dataset"
            )),
            _ => Ok(range),
        }
    }

    /// Makes the range of every size from `required` bytes up.
    ///
    /// # Errors
    /// [`Situation::ImpossibleSize`] for more bytes than CSI can express.
    pub(crate) fn from(required: u64) -> Result<Self> {
        let required = i64::try_from(required).map_err(|_| {
            let text = format!("a size of {required} bytes is more than any volume can have");
            Error::new(Situation::ImpossibleSize, text)
        })?;
        Self::parse(required, 0)
    }

    /// Returns the smallest requested size; 0 for none.
    pub(crate) fn required_bytes(self) -> u64 {
        self.required.unwrap_or(0)
    }

    /// Returns the largest requested size; 0 for none.
    pub(crate) fn limit_bytes(self) -> u64 {
        self.limit.unwrap_or(0)
    }

    /// Returns whether a volume of `size` bytes satisfies the caller.
    pub(crate) fn contains(self, size: u64) -> bool {
        self.required.is_none_or(|required| size >= required) && self.limit.is_none_or(|limit| size <= limit)
    }
}

/// How sizes are chosen: settings of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizePolicy {
    /// The size of a volume that was requested without one, in bytes.
    pub default_size: u64,
    /// Sizes are rounded up to a multiple of this many bytes, which the backend would do silently.
    pub allocation_unit: u64,
}

impl SizePolicy {
    /// Chooses the size of a new volume.
    ///
    /// If exactly one size is requested (`required == limit`), the volume has that size or the request is refused.
    ///
    /// # Errors
    /// [`Situation::ImpossibleSize`] when no multiple of the allocation unit lies within the range.
    pub(crate) fn choose(self, range: SizeRange) -> Result<u64> {
        let unit = self.allocation_unit.max(GRANULE);
        let wanted = match (range.required, range.limit) {
            (Some(required), Some(limit)) if required == limit => {
                return if required % GRANULE == 0 && required % self.allocation_unit.max(1) == 0 {
                    Ok(required)
                } else {
                    Err(Error::new(
                        Situation::ImpossibleSize,
                        format!(
                            "a size of exactly {required} bytes was asked for, but sizes are multiples of {unit} bytes"
                        ),
                    ))
                };
            }
            (Some(required), _) => required,
            (None, Some(limit)) => self.default_size.min(limit),
            (None, None) => self.default_size,
        };
        let rounded_up = wanted.max(MINIMUM_SIZE).checked_next_multiple_of(unit);
        let size = match (rounded_up, range.required, range.limit) {
            // Without a lower end, take the largest size up to the limit.
            (Some(size), None, Some(limit)) if size > limit => Some(limit - limit % unit),
            (size, _, _) => size,
        };
        size.filter(|size| *size >= MINIMUM_SIZE && i64::try_from(*size).is_ok() && range.contains(*size)).ok_or_else(
            || {
                let (required, limit) = (range.required_bytes(), range.limit_bytes());
                let text = format!(
                    "no size between {required} and {limit} bytes (0: open) is a multiple of the allocation unit, {unit} bytes"
                );
                Error::new(Situation::ImpossibleSize, text)
            },
        )
    }
}

/// Returns a size for people: in the largest binary unit in which it is a whole number.
pub(crate) fn size_text(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;
    const POLICY: SizePolicy = SizePolicy {
        default_size: 10 << 30,
        allocation_unit: 1 << 20,
    };

    fn choose(policy: SizePolicy, required: i64, limit: i64) -> Result<u64> {
        policy.choose(SizeRange::parse(required, limit)?)
    }

    #[test]
    fn sizes_are_rounded_up_to_the_allocation_unit_but_never_past_the_limit() {
        assert_eq!(choose(POLICY, 0, 0).unwrap(), 10 << 30);
        assert_eq!(choose(POLICY, 1, 0).unwrap(), MINIMUM_SIZE);
        assert_eq!(choose(POLICY, 100 * MIB + 1, 0).unwrap(), 101 << 20);
        assert_eq!(choose(POLICY, 0, 100 * MIB + 1).unwrap(), 100 << 20);
        let by_gib = SizePolicy {
            allocation_unit: 1 << 30,
            ..POLICY
        };
        let error = choose(by_gib, 100 * MIB, 200 * MIB).unwrap_err();
        assert_eq!(error.situation(), Situation::ImpossibleSize);
    }

    #[test]
    fn an_exact_size_is_honoured_exactly_or_refused() {
        let by_kib = SizePolicy {
            allocation_unit: 1024,
            ..POLICY
        };
        assert_eq!(choose(by_kib, 105_381_888, 105_381_888).unwrap(), 105_381_888);
        let error = choose(POLICY, 105_381_888, 105_381_888).unwrap_err();
        assert_eq!(error.situation(), Situation::ImpossibleSize);
    }

    #[test]
    fn an_impossible_range_is_refused_with_both_ends() {
        for (required, limit, part) in [
            (0, MIB, "64 MiB"),
            (200 * MIB, 100 * MIB, "less than"),
            (i64::MAX, 0, "9223372036854775807"),
        ] {
            let error = choose(POLICY, required, limit).unwrap_err();
            assert_eq!(error.situation(), Situation::ImpossibleSize);
            assert!(error.chain().contains(part), "{}", error.chain());
        }
        assert_eq!(
            SizeRange::parse(-1, 0).unwrap_err().situation(),
            Situation::InvalidArgument
        );
    }

    #[test]
    fn sizes_are_printed_in_the_largest_exact_unit() {
        assert_eq!(size_text(10 << 30), "10 GiB");
        assert_eq!(size_text(105_381_888), "102912 KiB");
        assert_eq!(size_text(1), "1 bytes");
    }
}
