//! Everything that is said to Flocker: its lists and writes, attaching, provisioning, and which node this is.

pub mod attach;
pub mod cluster;
pub mod node_identity;
pub mod provisioning;
