//! Attacks: clients, control services, file systems and other processes that mean harm, and what has to hold against each.
//!
//! `cargo test --test attacks` runs them all, and each says at its top what has to hold.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in test functions; this is for what they have in common"
)]

mod canary;
mod collector;
mod connections;
mod control_service;
mod descriptors;
mod disks;
mod garbage;
mod http2;
mod identity;
mod log;
mod memory;
mod memory_group;
mod racer;
mod start;
mod stopped_flocker;
mod storage;
mod streams;
#[allow(dead_code, reason = "the integration tests use the rest")]
#[path = "../integration/support/mod.rs"]
mod support;
