//! `grpc-timeout` of callers of `csi.v0`.

use std::time::Duration;

use flocker_embedded::faults::{Effect, RequestFault};
use tonic::Code;

use super::{Old, to_create};
use crate::node::{Fixture, assert_refused};
use crate::support::csi::within;
use crate::support::namespace::in_own_namespace;

const DATASETS: &str = "/v1/configuration/datasets";
const HELD: &str = "held";

#[test]
fn a_v0_caller_is_answered_in_its_time_and_both_versions_wait_for_the_same_work() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let old = Old::beside(fixture.csi());
        let faults = fixture.flocker.embedded().faults();
        faults.add(RequestFault::new(HELD, Effect::HoldRequest).on("POST", DATASETS));
        // A client that stopped waiting by itself would say "Timeout expired".
        let created = old.create(within(Duration::from_secs(3), to_create("data")));
        assert_refused(
            created.await,
            Code::DeadlineExceeded,
            &[
                "creating volume \"data\": waiting for \"configured\"",
                "the work continues, try again",
            ],
        );
        faults.remove(HELD);
        let by_new = fixture.csi().create("data").await;
        let by_old = old.create(to_create("data")).await.unwrap();
        assert_eq!(by_old.id, by_new.to_string());
        let counters = fixture.flocker.embedded().counters();
        assert_eq!(counters.answered("POST", DATASETS, 201), 1);
    });
}
