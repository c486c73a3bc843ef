//! The agents: one convergence loop per node, as Flocker's dataset agent runs it.
//!
//! An iteration is: observe, report, work out the next step of every dataset, carry all of them out. Then the
//! agent observes again. So an iteration never acts on an assumption, and what confuses a real agent confuses
//! this one.

mod convergence;
mod failures;
mod iteration;
mod node;
mod outcome;
mod plan;
mod shared;
mod status;
#[cfg(test)]
mod timeline;
mod timing;

pub(crate) use node::Node;
pub(crate) use shared::Shared;
pub(crate) use status::{Status, publish, sweep_leases, unlist_deleted, watch_mounts};
