//! What the plugin counts about itself, and the streams that it logs to.

mod counters;
mod output;

pub use counters::{Counter, Counters};
pub use output::{Output, Remark};
