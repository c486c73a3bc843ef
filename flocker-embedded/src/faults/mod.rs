//! What goes wrong on purpose, so that clients can be tested against it.
//!
//! A [`FaultPlan`] lists what is wrong at this moment; it can be replaced while Flocker runs. Nothing is wrong by
//! default, and nothing here costs anything then.

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
