//! What those who watch over the plugin see of it, over HTTP.

mod http;
mod readiness;

pub use http::Monitor;
pub use readiness::Readiness;
