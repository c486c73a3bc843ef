//! Probes of the plugin over HTTP.

mod http;
mod readiness;

pub use http::Monitor;
pub use readiness::Readiness;
