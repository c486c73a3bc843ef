//! Callers that stop waiting, and the errors they get before.

mod agents;
mod dropped;
mod handlers;
mod joining;
mod status;
mod timeouts;

use std::future::Future;

use flocker_embedded::faults::{Effect, Faults, RequestFault};
use tonic::Status;
use uuid::Uuid;

use crate::node::Fixture;

const DATASETS: &str = "/v1/configuration/datasets";
const DATASET: &str = "/v1/configuration/datasets/{dataset_id}";
const LEASES: &str = "/v1/configuration/leases";

/// The name of the rule that holds a request.
const HELD: &str = "held";

impl Fixture {
    fn faults(&self) -> &Faults {
        self.flocker.embedded().faults()
    }

    /// Returns a node to which the volume would have to move.
    async fn other_node_than_of(&self, volume: Uuid) -> Uuid {
        let datasets = self.flocker.datasets().await;
        let dataset = datasets
            .iter()
            .find(|dataset| dataset.dataset_id == volume)
            .unwrap();
        [1, 2]
            .map(|number| self.flocker.node(number))
            .into_iter()
            .find(|node| *node != dataset.primary)
            .unwrap()
    }

    /// Returns how often a request was sent to Flocker; it counts a request when it answers.
    fn asked(&self, method: &str, route: &str) -> u64 {
        self.flocker.embedded().counters().asked(method, route)
    }
}

/// Returns a rule that holds requests until it is removed.
fn hold(effect: Effect) -> RequestFault {
    RequestFault::new(HELD, effect)
}

/// Makes a call, and drops it when a request of it meets the rule. Returns whether one did before the call ended.
///
/// A held request is still held afterwards.
async fn leave_when_held<T: Send + 'static>(
    faults: &Faults,
    rule: RequestFault,
    call: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> bool {
    faults.add(rule);
    let mut call = tokio::spawn(call);
    tokio::select! {
        () = faults.until_met(HELD, 1) => {
            call.abort();
            let cancelled = call.await;
            assert!(cancelled.is_err_and(|error| error.is_cancelled()), "it was waiting");
            true
        }
        ended = &mut call => {
            ended.unwrap().map(drop).unwrap();
            faults.remove(HELD);
            false
        }
    }
}
