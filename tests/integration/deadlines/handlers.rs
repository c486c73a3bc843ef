//! Handlers that are dropped at every await, and calls that end at any moment while the node works.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use csi_proto::v1::node_server::Node;
use flocker_csi::config::Mode;
use flocker_csi::flocker::attach::Takeover;
use flocker_csi::host::{HostSettings, PinStore};
use flocker_csi::node::{LeaseSettings, NodeService, NodeSettings};
use flocker_csi::operation::Locks;
use flocker_csi::telemetry::Metrics;
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use super::dropped::assert_nothing_of_ours;
use crate::node::Fixture;
use crate::support::PATIENCE;
use crate::support::csi::Usage;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

/// Polls a future the given number of times and drops it; returns its output if it completed by then.
async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let (mut future, mut polls) = (pin!(future), 0);
    poll_fn(|context| {
        if polls == times {
            return Poll::Ready(None);
        }
        polls += 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Runs a call that is dropped after an increasing number of polls, until the call completes first.
async fn at_every_await(mut one: impl AsyncFnMut(usize) -> Option<()>) {
    let mut times = 0;
    while one(times).await.is_none() {
        times += 1;
    }
    // On a busy machine another thread may have done the work before the second poll.
    assert!(
        times > 0,
        "it was dropped before it began, and, unless it was done by then, while it waited"
    );
}

fn succeeded<T>(answer: Option<Result<T, Status>>) -> Option<()> {
    answer.map(|answer| answer.map(drop).unwrap())
}

#[test]
fn a_handler_dropped_at_any_of_its_awaits_leaves_nothing_half_done() {
    in_own_namespace(|| async {
        // This plugin serves the controller; the test calls the node's handlers without a socket.
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        machine.config.mode = Mode::Controller;
        let fixture = Fixture::on(machine, flocker).await;
        let usage = fixture.attached("data").await;
        fixture.flocker.reports(1, usage.dataset()).await;
        let (node, place) = (fixture.machine.node(), &fixture.machine.config);
        let settings = NodeSettings {
            host: HostSettings {
                mount_root: place.node.mount_root.clone(),
                state_dir: place.node.state_dir.clone(),
                device_dir: place.plugin.device_dir.clone(),
                accept_unverified_propagation: true,
                socket_dir: None,
                agent_file_systems: place.node.agent_file_systems.clone(),
                pin_store: PinStore::default(),
                metrics: Metrics::default(),
            },
            max_volumes_per_node: 0,
            topology: None,
            takeover: Takeover::Never,
            leases: LeaseSettings {
                abandoned_grace: PATIENCE,
                unexplained_grace: PATIENCE,
                only_nodes_attach: false,
            },
        };
        let this_node: flocker_csi::flocker::node_identity::ThisNode =
            Arc::new(move || Box::pin(async move { Ok(node) }));
        let service = NodeService::new(
            settings,
            fixture.flocker.cluster(),
            this_node,
            Locks::default(),
            None,
        );
        let stage = || service.node_stage_volume(Request::new(usage.to_stage()));
        let publish = || service.node_publish_volume(Request::new(usage.to_publish()));
        let unpublish = || service.node_unpublish_volume(Request::new(usage.to_unpublish()));
        let unstage = || service.node_unstage_volume(Request::new(usage.to_unstage()));

        at_every_await(async |times| {
            let dropped = polled(stage(), times).await;
            unstage().await.unwrap();
            assert_nothing_of_ours(&fixture, &usage);
            succeeded(dropped)
        })
        .await;
        stage().await.unwrap();
        at_every_await(async |times| {
            let dropped = polled(publish(), times).await;
            unpublish().await.unwrap();
            assert!(!usage.target.exists());
            succeeded(dropped)
        })
        .await;
        at_every_await(async |times| {
            publish().await.unwrap();
            let dropped = polled(unpublish(), times).await;
            publish().await.unwrap();
            only_mount_at(&usage.target);
            succeeded(dropped)
        })
        .await;
        unpublish().await.unwrap();
        at_every_await(async |times| {
            stage().await.unwrap();
            let dropped = polled(unstage(), times).await;
            stage().await.unwrap();
            only_mount_at(&usage.alias());
            succeeded(dropped)
        })
        .await;
        unstage().await.unwrap();
        assert_nothing_of_ours(&fixture, &usage);
    });
}

/// Runs a call that is ended after an increasing time, until the call completes first.
async fn at_many_moments(mut one: impl AsyncFnMut(Duration) -> bool) {
    let mut moment = Duration::from_micros(300);
    while !one(moment).await {
        moment = moment.mul_f64(1.4);
    }
}

async fn ended_within(moment: Duration, call: impl Future<Output = Result<(), Status>>) -> bool {
    let ended = timeout(moment, call).await;
    ended.is_ok_and(|answer| {
        answer.unwrap();
        true
    })
}

/// Calls again as orchestrators do where an inverse call that its caller has dropped reached the plugin later than
/// this one, and ended it.
async fn until_not_overtaken(mut call: impl AsyncFnMut() -> Result<(), Status>) {
    timeout(PATIENCE, async {
        loop {
            match call().await {
                Err(status) if status.code() == Code::Cancelled => {}
                answer => return answer.unwrap(),
            }
        }
    })
    .await
    .unwrap();
}

async fn assert_staged_once(fixture: &Fixture, usage: &Usage) {
    let csi = fixture.csi();
    until_not_overtaken(async || csi.stage(usage).await).await;
    only_mount_at(&usage.alias());
    assert_eq!(
        (fixture.machine.records().len(), fixture.machine.devices().len()),
        (1, 1)
    );
}

#[test]
fn a_call_dropped_at_any_moment_is_undone_by_the_inverse_call() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.attached("data").await);
        fixture.flocker.reports(1, usage.dataset()).await;
        at_many_moments(async |moment| {
            let ended = ended_within(moment, csi.stage(&usage)).await;
            csi.unstage(&usage).await.unwrap();
            assert_nothing_of_ours(&fixture, &usage);
            ended
        })
        .await;
        assert_staged_once(&fixture, &usage).await;
        at_many_moments(async |moment| {
            let ended = ended_within(moment, csi.publish(&usage)).await;
            csi.unpublish(&usage).await.unwrap();
            assert!(!usage.target.exists());
            assert_eq!(Mounts::read().at(&usage.target), []);
            ended
        })
        .await;
        at_many_moments(async |moment| {
            csi.publish(&usage).await.unwrap();
            let ended = ended_within(moment, csi.unpublish(&usage)).await;
            until_not_overtaken(async || csi.publish(&usage).await).await;
            only_mount_at(&usage.target);
            csi.unpublish(&usage).await.unwrap();
            ended
        })
        .await;
        at_many_moments(async |moment| {
            assert_staged_once(&fixture, &usage).await;
            let ended = ended_within(moment, csi.unstage(&usage)).await;
            assert_staged_once(&fixture, &usage).await;
            ended
        })
        .await;
        csi.unstage(&usage).await.unwrap();
        assert_nothing_of_ours(&fixture, &usage);
    });
}
