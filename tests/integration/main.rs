//! Integration tests.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in test functions; this is for what they have in common"
)]

mod admin;
mod announcement;
mod attach;
mod controller;
mod crash;
mod crash_points;
mod deadlines;
mod deploy;
mod devices;
mod doctor;
mod export;
mod flocker_link;
mod inputs;
mod kubelet;
mod log;
mod mesos;
mod model;
mod monitoring;
mod names;
mod node;
mod oddities;
mod one_writer;
mod privileges;
mod recorder;
mod runbook;
mod serving;
mod streams;
mod support;
mod topology;
mod traces;
mod v0;
