//! Volumes that become abnormal while no client asks.

use std::time::Duration;

use flocker_embedded::faults::{Effect, RequestFault};

use super::{controller, create, settings, wanted};
use crate::log::Log;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

const LEASES: &str = "/v1/configuration/leases";

#[test]
fn a_volume_that_becomes_abnormal_is_logged_once_and_without_a_call() {
    in_own_namespace(|| async {
        let (log, _logging) = Log::begin();
        let flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        let volume = create(&controller, wanted("data", 64)).await.unwrap().volume_id;
        let faults = flocker.embedded().faults();
        let lease = format!(r#"{{"dataset_id": "{volume}", "node_uuid": "?", "expires": null}}"#);
        faults.add(RequestFault::new("unreadable", Effect::AddToList(vec![lease])).on("GET", LEASES));
        let abnormal = format!("Volume {volume} is abnormal");
        let healthy = format!("Volume {volume} is healthy again");
        let is_logged = async |words: &str| {
            eventually(words, async || (!log.lines_with(words).is_empty()).then_some(())).await;
        };
        let both = async {
            is_logged(&abnormal).await;
            faults.clear();
            is_logged(&healthy).await;
        };
        tokio::select! {
            () = controller.watch_conditions(Duration::from_millis(1)) => unreachable!("it never ends"),
            () = both => {}
        }
        for words in [abnormal, healthy] {
            let lines = log.lines_with(&words);
            assert_eq!(lines.len(), 1, "{lines:?}");
        }
    });
}
