//! What the tests stand on.

pub(crate) mod flocker;
pub(crate) mod namespace;
