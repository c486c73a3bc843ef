//! What the plugin counts about itself, and the streams that it logs to.

mod counters;
mod metrics;
mod output;

pub use counters::{Counter, Counters};
pub use metrics::Metrics;
pub use output::{Output, Remark};
