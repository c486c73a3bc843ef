//! `grpc-timeout`, as clients send it.

use std::time::Duration;

use flocker_embedded::faults::Effect;
use tonic::{Code, Request};

use super::{DATASETS, HELD, hold};
use crate::node::{Fixture, assert_refused};
use crate::support::csi::{to_attach, to_create, within};
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

/// Makes a request with exactly this header.
fn with_header<T>(value: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("grpc-timeout", value.parse().unwrap());
    request
}

#[test]
fn a_caller_gets_the_missing_step_before_its_deadline() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let node = fixture.machine.node();
        fixture
            .faults()
            .add(hold(Effect::HoldRequest).on("POST", DATASETS));
        // A client that stopped waiting by itself would say "Timeout expired".
        let created = fixture
            .csi()
            .try_create(within(Duration::from_secs(3), to_create("data")));
        assert_refused(
            created.await,
            Code::DeadlineExceeded,
            &[
                "creating volume \"data\": waiting for \"configured\"",
                &format!("the new dataset on node {node}"),
                "(dataset ",
                "the work continues, try again (Flocker last answered",
            ],
        );
        fixture.faults().remove(HELD);
        fixture.csi().create("data").await;
        assert_eq!(
            fixture.asked("POST", DATASETS),
            1,
            "the second call joined the first one's work"
        );
    });
}

#[test]
fn a_caller_without_a_timeout_waits_for_the_end() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        fixture
            .faults()
            .add(hold(Effect::HoldRequest).on("POST", DATASETS));
        let csi = fixture.csi().clone();
        let waiting = tokio::spawn(async move { csi.create("data").await });
        fixture.faults().until_met(HELD, 1).await;
        let impatient = fixture
            .csi()
            .try_create(within(Duration::from_secs(1), to_create("data")));
        assert_refused(impatient.await, Code::DeadlineExceeded, &["configured"]);
        assert!(!waiting.is_finished(), "the other caller has time");
        fixture.faults().remove(HELD);
        waiting.await.unwrap();
    });
}

#[test]
fn a_timeout_too_short_to_answer_in_ends_the_call_and_leaves_a_state_to_resume_from() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        for value in ["0n", "1n", "0S", "1u", "1m"] {
            let refused = fixture
                .csi()
                .try_create(with_header(value, to_create("data")))
                .await;
            let refused = refused.unwrap_err();
            // The client also measures the time, and reports the deadline with a code of its own.
            let repeatable = [Code::DeadlineExceeded, Code::Unavailable, Code::Cancelled];
            assert!(repeatable.contains(&refused.code()), "{value}: {refused:?}");
        }
        let volume = fixture.csi().create("data").await;
        let counters = fixture.flocker.embedded().counters();
        assert_eq!(counters.answered("POST", DATASETS, 201), 1);
        let node = fixture.machine.node();
        for value in ["0n", "1u"] {
            let attached = fixture
                .csi()
                .try_attach(with_header(value, to_attach(volume, node)));
            attached.await.unwrap_err();
        }
        let context = fixture.csi().attach(volume, node).await;
        let usage = fixture.machine.usage("data", volume, &context);
        for value in ["0n", "1u"] {
            let staged = fixture
                .csi()
                .node()
                .node_stage_volume(with_header(value, usage.to_stage()))
                .await;
            staged.unwrap_err();
        }
        fixture.csi().stage(&usage).await.unwrap();
        only_mount_at(&usage.alias());
    });
}

#[test]
fn a_timeout_that_is_absurdly_long_or_no_timeout_at_all_does_no_harm() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let values = [
            "99999999H",
            "99999999S",
            "",
            "S",
            "-1S",
            "1.5S",
            "1x",
            "123456789S",
        ];
        let mut volumes = Vec::new();
        for value in values {
            let created = fixture.csi().try_create(with_header(value, to_create("data")));
            volumes.push(
                created
                    .await
                    .unwrap_or_else(|refused| panic!("{value:?}: {refused}")),
            );
        }
        volumes.dedup();
        assert_eq!(volumes.len(), 1);
        assert_eq!(fixture.asked("POST", DATASETS), 1);
    });
}
