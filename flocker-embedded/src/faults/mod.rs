//! Faults to inject, so that clients can be tested against them.
//!
//! A [`FaultPlan`] lists the faults of the moment; it can be replaced while Flocker runs. It is empty by default, and
//! then costs nothing.

mod check;
mod control;
mod file;
mod node_faults;
mod plan;
mod request_faults;
mod requests;

pub use control::Faults;
pub use file::PlanError;
pub use node_faults::{AgentState, MachineState, NodeFault};
pub use plan::{FaultPlan, Flicker};
pub use request_faults::{Effect, RequestFault};
pub(crate) use requests::{Lost, inject};
