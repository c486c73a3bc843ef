//! Flocker's four lists.

use bitflags::bitflags;

bitflags! {
    /// A set of the lists that the control service offers. Each is fetched whole: no request returns a single item.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Lists: u8 {
        /// The configured datasets, deleted ones included.
        const CONFIGURATION = 1;
        /// The datasets as the nodes report them.
        const STATE = 1 << 1;
        /// The nodes that report.
        const NODES = 1 << 2;
        /// The leases.
        const LEASES = 1 << 3;
    }
}

impl Lists {
    /// Returns the name of one list, for metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CONFIGURATION => "configuration",
            Self::STATE => "state",
            Self::NODES => "nodes",
            Self::LEASES => "leases",
            _ => "several",
        }
    }
}
