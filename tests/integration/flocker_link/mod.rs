//! The connection to Flocker: certificates, addresses, connections, and the number of requests.

mod address;
mod certificates;
mod connections;
mod load;
mod proxy;
mod volume_life;

use flocker_embedded::{Counters, Options, Timing};

use crate::support::eventually;
use crate::support::flocker::Flocker;

/// The routes of Flocker's four lists.
const CONFIGURATION: &str = "/v1/configuration/datasets";
const STATE: &str = "/v1/state/datasets";
const NODES: &str = "/v1/state/nodes";
const LEASES: &str = "/v1/configuration/leases";

/// Starts a Flocker with a node that has the delays of Flocker's own agents; the node reports.
async fn at_flockers_own_pace(change: impl FnOnce(Options) -> Options) -> Flocker {
    let stock = |options| Options {
        timing: Timing::Stock,
        ..options
    };
    let flocker = Flocker::with(|options| change(stock(options))).await;
    let client = flocker.client().await;
    eventually("the node reports", async || {
        (!client.list_nodes().await.unwrap().is_empty()).then_some(())
    })
    .await;
    flocker
}

/// Starts a Flocker on which volumes are declared but never backed.
async fn without_storage() -> Flocker {
    at_flockers_own_pace(|options| Options {
        capacity: Some(0),
        ..options
    })
    .await
}

/// Returns how often each of the four lists has been read.
fn reads(counters: &Counters) -> [u64; 4] {
    [CONFIGURATION, STATE, NODES, LEASES].map(|route| counters.asked("GET", route))
}

/// Returns how often each of the four lists was read between two moments.
fn reads_since(before: &Counters, after: &Counters) -> [u64; 4] {
    let (before, after) = (reads(before), reads(after));
    std::array::from_fn(|list| after[list] - before[list])
}
