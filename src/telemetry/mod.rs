//! What the plugin counts about itself, and the streams that it logs to.

mod blocking;
mod counters;
mod latest;
mod metrics;
mod output;

pub(crate) use blocking::{BlockingThread, spawn_blocking};
pub use counters::{Counter, Counters};
pub(crate) use latest::Latest;
pub(crate) use metrics::{Labels, Series, count, number};
pub use metrics::{LookedUp, Metrics};
pub use output::{Output, Remark};
