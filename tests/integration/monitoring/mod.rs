//! What an operator sees of a running plugin.

mod log;
mod metrics;
