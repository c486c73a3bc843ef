//! What the Controller and the Node service share: identity, capabilities, checks of fields, and the one table from
//! a situation to a gRPC code.

pub mod capability;
pub mod fields;
pub mod identity;
pub mod status;
