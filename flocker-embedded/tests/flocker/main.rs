//! An embedded Flocker on real loop devices, asked as a client asks it. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod api;
mod contract;
mod faults;
mod life;
mod nodes;
mod restart;
mod stories;
mod support;
