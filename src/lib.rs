//! A Container Storage Interface plugin for clusters whose storage is run by Flocker.
//!
//! The plugin turns CSI calls into Flocker datasets, moves and leases over the control service's REST API, and
//! into mounts on the node. `ARCHITECTURE.md` has the map: the layers, which module answers which call, and what
//! happens when a step fails.

pub mod commands;
pub mod config;
pub mod controller;
pub mod csi;
#[doc(hidden)]
pub mod decisions;
pub mod error;
pub mod flocker;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod host;
pub mod node;
pub mod operation;
pub mod server;
pub mod telemetry;
mod v0;
pub mod volume;
