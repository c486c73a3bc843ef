//! An embedded Flocker on real loop devices, used through its REST API. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod api;
mod contract;
mod deleted;
mod example;
mod faults;
mod life;
mod nodes;
mod restart;
mod scenarios;
mod status;
mod storage;
mod support;
mod upgrade;
