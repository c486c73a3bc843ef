//! Which of Flocker's four lists somebody needs.

use std::ops::BitOr;

/// A set of the lists the control service offers. Each is fetched whole: nothing returns one item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lists(u8);

impl Lists {
    /// The configured datasets, deleted ones included.
    pub const CONFIGURATION: Self = Self(1);
    /// The datasets as the nodes report them.
    pub const STATE: Self = Self(2);
    /// The nodes that report.
    pub const NODES: Self = Self(4);
    /// The leases.
    pub const LEASES: Self = Self(8);

    /// Whether every list of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Lists {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_contains_both_sides_and_nothing_else() {
        let both = Lists::STATE | Lists::LEASES;
        assert!(
            both.contains(Lists::STATE) && both.contains(Lists::LEASES) && both.contains(Lists::default())
        );
        assert!(!both.contains(Lists::NODES) && !Lists::STATE.contains(both));
    }
}
