//! A Container Storage Interface plugin for clusters whose storage is run by Flocker.
//!
//! The plugin turns CSI calls into Flocker datasets, moves and leases over the control service's REST API, and
//! into mounts on the node. `ARCHITECTURE.md` has the map: which module answers which call, and what happens when
//! a step fails.

pub mod attach;
pub mod capability;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod deadline;
pub mod demo;
pub mod durable;
pub mod embedded;
pub mod error;
pub mod export;
pub mod failure;
pub mod fields;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod identity;
pub mod kubelet;
pub mod monitoring;
pub mod node;
pub mod node_identity;
pub mod operation;
pub mod provisioning;
pub mod serve;
pub mod server;
pub mod signals;
pub mod standalone;
pub mod status;
pub mod stdout;
pub mod suggest;
pub mod telemetry;
pub mod v0;
pub mod volume;
