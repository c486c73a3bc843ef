//! What the plugin counts about itself, the streams that it logs to, and which release it is.

mod abnormal;
mod blocking;
mod counters;
mod latest;
pub(crate) mod log_names;
mod metrics;
mod output;
mod release;
mod traces;

pub(crate) use abnormal::AbnormalVolumes;
pub(crate) use blocking::{BlockingThread, spawn_blocking};
pub use counters::{Counter, Counters};
pub(crate) use latest::Latest;
pub(crate) use metrics::{Labels, Series, count, number};
pub use metrics::{LookedUp, Metrics};
pub use output::{Output, Remark};
pub(crate) use release::VERSION_AND_COMMIT;
pub use release::{COMMIT, VERSION};
pub use traces::OtlpEndpoint;
pub(crate) use traces::{
    EndedPhase, ProgramAttributes, Trace, TraceExport, TracedRequest, record, record_number,
};
