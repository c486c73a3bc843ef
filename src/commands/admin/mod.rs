//! The commands with which an operator looks at the cluster and at this machine, and acts.
//!
//! They work beside a plugin that runs, and without one: they ask Flocker for themselves, and read what this machine knows
//! without changing or locking anything.

mod args;
mod doctor;
mod gc;
mod leases;
mod nodes;
mod output;
mod survey;
mod table;
mod volumes;

pub use args::AdminArgs;
pub use doctor::{DoctorArgs, check_deep, check_files, run as doctor};
pub use gc::{GcArgs, run as gc};
pub use leases::{LeasesArgs, run as leases};
pub use nodes::{NodesArgs, run as nodes};
pub use volumes::{VolumesArgs, run as volumes};
