//! What the Controller and the Node service share: identity, capabilities, checks of fields, and the one table from
//! a situation to a gRPC code.

pub mod capability;
pub(crate) mod fields;
pub(crate) mod identity;
pub(crate) mod status;
