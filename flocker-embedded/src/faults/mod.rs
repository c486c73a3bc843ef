//! Faults to inject, so that clients can be tested against them.
//!
//! A [`FaultPlan`] lists the faults of the moment; it can be replaced while Flocker runs. It is empty by default, and
//! then costs nothing.

mod check;
mod control;
mod file;
mod nodes;
mod plan;
mod requests;
mod rules;

pub use control::Faults;
pub use file::PlanError;
pub use nodes::{AgentState, MachineState, NodeFault};
pub use plan::{FaultPlan, Flicker};
pub(crate) use requests::{Lost, inject};
pub use rules::{Effect, RequestFault};
