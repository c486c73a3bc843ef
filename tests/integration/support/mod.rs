//! Fixtures that the tests share.

pub(crate) mod csi;
pub(crate) mod flocker;
pub(crate) mod machine;
pub(crate) mod mounts;
pub(crate) mod namespace;
pub(crate) mod process;
pub(crate) mod scratch;
pub(crate) mod standalone;
#[path = "../../../flocker-embedded/tests/flocker/support/state.rs"]
pub(crate) mod state;
pub(crate) mod tcp_proxy;
pub(crate) mod verbatim;

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The longest wait for an event that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Polls until a value exists, and returns it.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} until {what}");
        sleep(POLL).await;
    }
}
