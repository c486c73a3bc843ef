//! What the program offers on its command line, and what every command needs to start, end and print.

pub mod admin;
pub mod cli;
pub(crate) mod connection;
pub mod demo;
pub mod embedded;
pub mod export;
pub mod failure;
pub(crate) mod http;
pub mod logging;
pub mod memory;
pub mod serve;
pub(crate) mod signals;
pub mod standalone;
pub mod stdout;
pub(crate) mod storage_metrics;
