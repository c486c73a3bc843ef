//! The error at a caller's deadline: which step is missing, where, since when, and the state of Flocker.

use std::collections::HashMap;
use std::fs::File;
use std::time::Duration;

use csi_proto::v1::ListVolumesRequest;
use flocker_embedded::Options;
use flocker_embedded::faults::{Effect, RequestFault};
use tonic::{Code, Status};

use super::{DATASET, LEASES};
use crate::node::{Fixture, assert_refused, unknown_id};
use crate::support::csi::{to_attach, to_create, to_detach, within};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::tcp_proxy::TcpProxy;

const PATIENCE: Duration = Duration::from_secs(2);

/// A plugin whose connection to Flocker can be closed.
async fn proxied() -> (Fixture, TcpProxy) {
    let flocker = Flocker::start(1).await;
    let proxy = TcpProxy::to(flocker.embedded().address()).await;
    let fixture = Fixture::on(Machine::through(proxy.address(), &flocker, 1), flocker).await;
    (fixture, proxy)
}

/// Checks a message about unfinished work: its code, its parts, since when, and the state of Flocker.
#[track_caller]
pub(super) fn assert_unfinished<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, parts: &[&str]) {
    let refused = answer.unwrap_err();
    let text = refused.message().to_owned();
    assert_refused(Err::<(), _>(refused), code, parts);
    let since = text.split(" for ").skip(1).any(|rest| {
        let number = rest.split(' ').next().unwrap_or_default();
        number.parse::<f64>().is_ok() && rest[number.len()..].starts_with(" s")
    });
    assert!(since, "since when: {text}");
    assert!(
        text.contains("try again (Flocker last answered") || text.contains("Flocker has not answered yet"),
        "{text}"
    );
}

#[test]
fn a_release_waits_for_an_answer_from_flocker_too() {
    in_own_namespace(|| async {
        let (fixture, proxy) = proxied().await;
        let (node, attached) = (fixture.machine.node(), fixture.attached("attached").await);
        let own = fixture.csi().create("node-driven").await;
        let own = fixture.machine.usage("node-driven", own, &HashMap::new());
        fixture.csi().stage(&own).await.unwrap();
        proxy.stall();
        let detached = within(PATIENCE, to_detach(attached.dataset(), node));
        assert_unfinished(
            fixture.csi().try_detach(detached).await,
            Code::Unavailable,
            &[&attached.volume_id, "waiting for an answer from Flocker"],
        );
        let unstaged = within(PATIENCE, own.to_unstage());
        assert_unfinished(
            fixture.csi().node().node_unstage_volume(unstaged).await,
            Code::Unavailable,
            &[&own.volume_id, "waiting for an answer from Flocker"],
        );
    });
}

#[test]
fn an_unreachable_flocker_is_reported_with_the_age_of_its_last_answer() {
    in_own_namespace(|| async {
        let (fixture, proxy) = proxied().await;
        let usage = fixture.attached("data").await;
        proxy.close();
        let down = [
            "cannot read the state of the cluster from Flocker, which last answered",
            "s ago",
        ];
        let words = |doing: String| [&down[..], &[doing.leak()]].concat();
        assert_refused(
            fixture.csi().try_create(to_create("other")).await,
            Code::Unavailable,
            &words("creating volume \"other\"".to_owned()),
        );
        let node = fixture.machine.node();
        assert_refused(
            fixture.csi().try_attach(to_attach(usage.dataset(), node)).await,
            Code::Unavailable,
            &words(format!("attaching volume {} to node {node}", usage.volume_id)),
        );
        assert_refused(
            fixture.csi().stage(&usage).await,
            Code::Unavailable,
            &words(format!(
                "staging volume {} at {}",
                usage.volume_id,
                usage.staging.display()
            )),
        );
        proxy.open();
        fixture.csi().stage(&usage).await.unwrap();
    });
}

#[test]
fn a_flocker_that_does_not_answer_is_what_is_waited_for() {
    in_own_namespace(|| async {
        let (fixture, proxy) = proxied().await;
        let usage = fixture.attached("data").await;
        proxy.stall();
        let staged = fixture
            .csi()
            .node()
            .node_stage_volume(within(PATIENCE, usage.to_stage()))
            .await;
        assert_unfinished(
            staged,
            Code::Unavailable,
            &[&usage.volume_id, "waiting for an answer from Flocker"],
        );
        let created = fixture
            .csi()
            .try_create(within(PATIENCE, to_create("other")))
            .await;
        assert_unfinished(
            created,
            Code::Unavailable,
            &["waiting for an answer from Flocker"],
        );
        let listed = within(PATIENCE, ListVolumesRequest::default());
        assert_refused(
            fixture.csi().controller().list_volumes(listed).await,
            Code::Unavailable,
            &["Flocker has not answered in time", "Flocker last answered"],
        );
    });
}

#[test]
fn the_last_error_of_flocker_is_reported_with_its_age() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let volume = fixture.csi().create("data").await;
        let broken = Effect::Answer {
            status: 500,
            body: "\"Traceback\"".to_owned(),
        };
        // The first reads succeed; the expected change does not happen.
        fixture
            .faults()
            .add(RequestFault::new("broken", broken).on("GET", "/v1/state/datasets"));
        let attached = fixture
            .csi()
            .try_attach(within(PATIENCE, to_attach(volume, fixture.machine.node())));
        assert_unfinished(
            attached.await,
            Code::Unavailable,
            &[
                &volume.to_string(),
                "waiting for an answer from Flocker",
                "its last error was",
                "500",
            ],
        );
        fixture.faults().clear();
        fixture.csi().attach(volume, fixture.machine.node()).await;
    });
}

#[test]
fn a_node_that_does_not_report_is_named() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (volume, absent) = (fixture.csi().create("data").await, unknown_id());
        let attached = fixture
            .csi()
            .try_attach(within(PATIENCE, to_attach(volume, absent)));
        assert_unfinished(
            attached.await,
            Code::Unavailable,
            &[
                &format!("attaching volume {volume} to node {absent}"),
                "waiting for \"node reporting\": Flocker, which lists ",
                &format!(", does not list node {absent} for"),
                &format!("(dataset {volume})"),
            ],
        );
    });
}

#[test]
fn a_request_that_flocker_has_not_stored_is_reported_with_its_content() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let volume = fixture.csi().create("data").await;
        let node = fixture.other_node_than_of(volume).await;
        let steps = [
            ("lease", LEASES, "the lease for"),
            ("move", DATASET, "the move to"),
        ];
        for (name, route, _) in steps {
            let held = RequestFault::new(name, Effect::HoldRequest).on("POST", route);
            fixture.faults().add(held);
        }
        for (name, _, what) in steps {
            let attached = fixture
                .csi()
                .try_attach(within(PATIENCE, to_attach(volume, node)))
                .await;
            assert_unfinished(
                attached,
                Code::DeadlineExceeded,
                &[&format!(
                    "waiting for \"configured\": Flocker has not stored {what} node {node}"
                )],
            );
            fixture.faults().remove(name);
        }
        fixture.csi().attach(volume, node).await;
    });
}

#[test]
fn a_missing_backing_volume_is_reported_with_the_node_that_makes_it() {
    in_own_namespace(|| async {
        // Flocker accepts every request; a volume above the capacity is never backed.
        let flocker = Flocker::with(|options| Options {
            capacity: Some(32 << 20),
            ..options
        })
        .await;
        let fixture = Fixture::on(Machine::new(&flocker, 1), flocker).await;
        let created = fixture
            .csi()
            .try_create(within(PATIENCE, to_create("data")))
            .await;
        assert_unfinished(
            created,
            Code::DeadlineExceeded,
            &[
                "creating volume \"data\"",
                &format!("waiting for \"backing volume\": node {}", fixture.machine.node()),
                " has not created it yet for",
                "(dataset ",
            ],
        );
    });
}

#[test]
fn a_node_that_does_not_let_go_is_named() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let (first, second) = (fixture.flocker.node(1), fixture.flocker.node(2));
        let volume = fixture.csi().create("data").await;
        fixture.csi().attach(volume, second).await;
        fixture.flocker.reports(2, volume).await;
        let open = File::open(fixture.flocker.mount_of(2, volume)).unwrap();
        fixture.csi().detach(volume, second).await;
        let attached = fixture
            .csi()
            .try_attach(within(PATIENCE, to_attach(volume, first)))
            .await;
        assert_unfinished(
            attached,
            Code::DeadlineExceeded,
            &[
                &format!("attaching volume {volume} to node {first}"),
                "waiting for \"released by the other node\"",
                &format!("the agent of node {second}"),
                " is about to unmount the dataset",
                "it has been mounted there for",
            ],
        );
        drop(open);
        fixture.csi().attach(volume, first).await;
    });
}

#[test]
fn a_node_that_holds_the_lease_is_named() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let (first, second) = (fixture.flocker.node(1), fixture.flocker.node(2));
        let volume = fixture.csi().create("data").await;
        fixture.csi().attach(volume, second).await;
        assert_refused(
            fixture.csi().try_attach(to_attach(volume, first)).await,
            Code::FailedPrecondition,
            &[
                &format!("volume {volume} cannot be attached to node {first}"),
                &format!("node {second}"),
                "holds its lease",
            ],
        );
    });
}
