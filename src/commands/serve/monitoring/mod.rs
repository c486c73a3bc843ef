//! Probes of the plugin over HTTP.

mod http;
mod readiness;

pub(crate) use http::Monitor;
pub(crate) use readiness::Readiness;
