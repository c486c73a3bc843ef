//! Calls that are dropped at every request that their work sends to Flocker, one after the other.
//!
//! The tests enumerate every moment at which an operation can wait for Flocker, before and after Flocker has carried out
//! the request; the phases that wait for the mount table are in `node/cancellation.rs`. At each of them the caller
//! disconnects and sends the inverse call; then nothing may remain, and the same call must succeed again.

use std::fs;
use std::time::Duration;

use flocker_csi::volume::{Namespace, VolumeName};
use flocker_embedded::faults::{Effect, RequestFault};
use tonic::{Code, Status};
use uuid::Uuid;

use super::{DATASETS, HELD, LEASES, hold, leave_when_held};
use crate::node::{Fixture, assert_refused, unknown_id};
use crate::support::csi::{Csi, Usage, to_attach, to_create, to_detach, within};
use crate::support::eventually;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

const DRIVER: &str = "flocker.csi.clusterhq.com";

/// How long the inverse call waits while the request is still held; it need not succeed then.
const IMPATIENCE: Duration = Duration::from_millis(500);

/// Returns a rule that holds one request after the given number of requests.
fn nth(effect: &Effect, passed: u64) -> RequestFault {
    RequestFault {
        after: passed,
        ..hold(effect.clone()).once()
    }
}

/// Checks that a call succeeded or may be repeated.
fn assert_not_final(answer: Result<(), Status>) {
    if let Err(refused) = answer {
        let repeatable = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled];
        assert!(repeatable.contains(&refused.code()), "{refused:?}");
    }
}

pub(super) fn assert_nothing_of_ours(fixture: &Fixture, usage: &Usage) {
    assert_eq!(Mounts::read().below(&fixture.machine.path("")), []);
    assert_eq!(fs::read_dir(&usage.staging).unwrap().count(), 0);
    let left = (fixture.machine.records(), fixture.machine.devices());
    assert_eq!(left, (Vec::new(), Vec::new()));
}

/// Deletes the volume, which requires that no pin is left.
async fn destroy(fixture: &Fixture, volume: Uuid) {
    fixture.csi().delete(volume).await.unwrap();
    eventually("the volume is destroyed", async || {
        fixture.flocker.backing_files().is_empty().then_some(())
    })
    .await;
}

/// Drops a call at each request of its work, of which there must be at least `least`; each run gets the request's number.
async fn at_every_request(
    fixture: &Fixture,
    effect: Effect,
    least: u64,
    mut one: impl AsyncFnMut(RequestFault) -> bool,
) {
    let mut passed = 0;
    while one(nth(&effect, passed)).await {
        passed += 1;
    }
    assert!(
        passed >= least,
        "{passed} requests were met, at least {least} were expected"
    );
    fixture.faults().clear();
}

async fn creates_at_every_request(effect: Effect) {
    let fixture = Fixture::start(1).await;
    let (csi, faults) = (fixture.csi(), fixture.faults());
    let mut number = 0;
    at_every_request(&fixture, effect, 3, async |rule| {
        number += 1;
        let name = format!("data-{number}");
        let before = fixture
            .flocker
            .embedded()
            .counters()
            .answered("POST", DATASETS, 201);
        let (caller, wanted) = (csi.clone(), to_create(&name));
        let left = leave_when_held(faults, rule, async move { caller.try_create(wanted).await }).await;
        let impatient = csi.try_create(within(IMPATIENCE, to_create(&name))).await;
        assert_not_final(impatient.map(drop));
        faults.remove(HELD);
        let volume = csi.create(&name).await;
        let made = Namespace::new(DRIVER).dataset_id(&VolumeName::parse(&name).unwrap(), 0);
        assert_eq!(volume, made, "never a second generation");
        let counters = fixture.flocker.embedded().counters();
        assert_eq!(counters.answered("POST", DATASETS, 201) - before, 1);
        destroy(&fixture, volume).await;
        left
    })
    .await;
}

#[test]
fn a_create_dropped_before_any_of_its_requests_makes_one_volume_that_can_be_deleted() {
    in_own_namespace(|| creates_at_every_request(Effect::HoldRequest));
}

#[test]
fn a_create_dropped_after_any_of_its_requests_makes_one_volume_that_can_be_deleted() {
    in_own_namespace(|| creates_at_every_request(Effect::HoldReply));
}

async fn deletes_at_every_request(effect: Effect) {
    let fixture = Fixture::start(1).await;
    let (csi, faults) = (fixture.csi(), fixture.faults());
    let mut number = 0;
    at_every_request(&fixture, effect, 4, async |rule| {
        number += 1;
        let volume = csi.create(&format!("data-{number}")).await;
        let caller = csi.clone();
        let left = leave_when_held(faults, rule, async move { caller.delete(volume).await }).await;
        faults.remove(HELD);
        destroy(&fixture, volume).await;
        left
    })
    .await;
}

#[test]
fn a_deletion_dropped_at_any_of_its_requests_can_be_repeated() {
    in_own_namespace(|| deletes_at_every_request(Effect::HoldReply));
}

/// Attaches a volume to two nodes alternately, so that it must move each time.
async fn attachments_at_every_request(effect: Effect, while_held: bool) {
    let fixture = Fixture::start(2).await;
    let (csi, faults) = (fixture.csi(), fixture.faults());
    let volume = csi.create("data").await;
    let mut number = 1;
    at_every_request(&fixture, effect, 7, async |rule| {
        number = 3 - number;
        let node = fixture.flocker.node(number);
        let caller = csi.clone();
        let attaching = async move { caller.try_attach(to_attach(volume, node)).await };
        let left = leave_when_held(faults, rule, attaching).await;
        if while_held {
            assert_not_final(csi.try_detach(within(IMPATIENCE, to_detach(volume, node))).await);
        }
        faults.remove(HELD);
        csi.detach(volume, node).await;
        assert_eq!(fixture.flocker.leaseholder(volume).await, None);
        csi.attach(volume, node).await;
        assert_eq!(fixture.flocker.leaseholder(volume).await, Some(node));
        fixture.flocker.reports(number, volume).await;
        csi.detach(volume, node).await;
        assert_eq!(fixture.flocker.leaseholder(volume).await, None);
        left
    })
    .await;
    destroy(&fixture, volume).await;
}

#[test]
fn an_attachment_dropped_before_any_of_its_requests_leaves_no_lease() {
    in_own_namespace(|| attachments_at_every_request(Effect::HoldRequest, true));
}

#[test]
fn an_attachment_dropped_after_any_of_its_requests_leaves_no_lease() {
    in_own_namespace(|| attachments_at_every_request(Effect::HoldReply, false));
}

#[test]
fn a_detachment_dropped_at_any_of_its_requests_can_be_repeated_or_undone() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, faults, node) = (fixture.csi(), fixture.faults(), fixture.machine.node());
        let volume = csi.create("data").await;
        at_every_request(&fixture, Effect::HoldReply, 2, async |rule| {
            csi.attach(volume, node).await;
            let caller = csi.clone();
            let detaching = async move { caller.try_detach(to_detach(volume, node)).await };
            let left = leave_when_held(faults, rule, detaching).await;
            faults.remove(HELD);
            csi.attach(volume, node).await;
            assert_eq!(fixture.flocker.leaseholder(volume).await, Some(node));
            csi.detach(volume, node).await;
            assert_eq!(fixture.flocker.leaseholder(volume).await, None);
            left
        })
        .await;
        destroy(&fixture, volume).await;
    });
}

async fn unstage_within(csi: &Csi, usage: &Usage, time: Duration) -> Result<(), Status> {
    let request = within(time, usage.to_unstage());
    csi.node().node_unstage_volume(request).await.map(drop)
}

async fn stagings_at_every_request(effect: Effect, while_held: bool) {
    let fixture = Fixture::start(1).await;
    let (csi, faults) = (fixture.csi(), fixture.faults());
    let usage = fixture.attached("data").await;
    fixture.flocker.reports(1, usage.dataset()).await;
    at_every_request(&fixture, effect, 2, async |rule| {
        let (caller, staging) = (csi.clone(), usage.clone());
        let left = leave_when_held(faults, rule, async move { caller.stage(&staging).await }).await;
        if while_held {
            assert_not_final(unstage_within(csi, &usage, IMPATIENCE).await);
        }
        faults.remove(HELD);
        csi.unstage(&usage).await.unwrap();
        assert_nothing_of_ours(&fixture, &usage);
        csi.stage(&usage).await.unwrap();
        only_mount_at(&usage.alias());
        csi.unstage(&usage).await.unwrap();
        assert_nothing_of_ours(&fixture, &usage);
        left
    })
    .await;
    csi.detach(usage.dataset(), fixture.machine.node()).await;
    destroy(&fixture, usage.dataset()).await;
}

#[test]
fn a_staging_dropped_before_any_of_its_requests_leaves_nothing() {
    in_own_namespace(|| stagings_at_every_request(Effect::HoldRequest, true));
}

#[test]
fn a_staging_dropped_after_any_of_its_requests_leaves_nothing() {
    in_own_namespace(|| stagings_at_every_request(Effect::HoldReply, false));
}

/// Stages a volume without a controller, each time from the other node.
async fn node_driven_stagings_at_every_request(effect: Effect, while_held: bool) {
    let fixture = Fixture::start(2).await;
    let (csi, faults, client) = (fixture.csi(), fixture.faults(), fixture.flocker.client().await);
    let volume = csi.create("data").await;
    let usage = fixture.machine.usage("data", volume, &[].into());
    at_every_request(&fixture, effect, 9, async |rule| {
        client
            .move_dataset(volume, fixture.flocker.node(2))
            .await
            .unwrap();
        fixture.flocker.reports(2, volume).await;
        let (caller, staging) = (csi.clone(), usage.clone());
        let left = leave_when_held(faults, rule, async move { caller.stage(&staging).await }).await;
        if while_held {
            assert_not_final(unstage_within(csi, &usage, IMPATIENCE).await);
        }
        faults.remove(HELD);
        csi.unstage(&usage).await.unwrap();
        eventually("the lease is released", async || {
            fixture.flocker.leaseholder(volume).await.is_none().then_some(())
        })
        .await;
        eventually("the record is removed with it", async || {
            fixture.machine.records().is_empty().then_some(())
        })
        .await;
        assert_nothing_of_ours(&fixture, &usage);
        csi.stage(&usage).await.unwrap();
        only_mount_at(&usage.alias());
        assert_eq!(
            fixture.flocker.leaseholder(volume).await,
            Some(fixture.machine.node())
        );
        csi.unstage(&usage).await.unwrap();
        assert_eq!(fixture.flocker.leaseholder(volume).await, None);
        assert_nothing_of_ours(&fixture, &usage);
        left
    })
    .await;
    destroy(&fixture, volume).await;
}

#[test]
fn a_node_driven_staging_dropped_before_any_of_its_requests_leaves_nothing() {
    in_own_namespace(|| node_driven_stagings_at_every_request(Effect::HoldRequest, true));
}

#[test]
fn a_node_driven_staging_dropped_after_any_of_its_requests_leaves_nothing() {
    in_own_namespace(|| node_driven_stagings_at_every_request(Effect::HoldReply, false));
}

#[test]
fn an_unstaging_dropped_at_any_of_its_requests_can_be_undone_and_repeated() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, faults, node) = (fixture.csi(), fixture.faults(), fixture.machine.node());
        let volume = csi.create("data").await;
        let usage = fixture.machine.usage("data", volume, &[].into());
        at_every_request(&fixture, Effect::HoldReply, 2, async |rule| {
            csi.stage(&usage).await.unwrap();
            let (caller, staged) = (csi.clone(), usage.clone());
            let left = leave_when_held(faults, rule, async move { caller.unstage(&staged).await }).await;
            faults.remove(HELD);
            csi.stage(&usage).await.unwrap();
            only_mount_at(&usage.alias());
            assert_eq!(fixture.flocker.leaseholder(volume).await, Some(node));
            csi.unstage(&usage).await.unwrap();
            assert_eq!(fixture.flocker.leaseholder(volume).await, None);
            assert_nothing_of_ours(&fixture, &usage);
            left
        })
        .await;
        destroy(&fixture, volume).await;
    });
}

/// Waits until the operation at the target reports that it waits for these words.
///
/// Another volume cannot be published there at the same time, and the refusal says why.
async fn wait_until_publishing(csi: &Csi, usage: &Usage, words: &str) {
    let other = Usage {
        volume_id: unknown_id().to_string(),
        ..usage.clone()
    };
    eventually(&format!("publishing waits for {words:?}"), async || {
        let request = within(Duration::from_millis(200), other.to_publish());
        let refused = csi.node().node_publish_volume(request).await.unwrap_err();
        refused.message().contains(words).then_some(())
    })
    .await;
}

#[test]
fn a_publication_that_waited_for_the_volume_mounts_nothing_without_its_caller() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, faults) = (fixture.csi(), fixture.faults());
        let usage = fixture.staged("data").await;
        let elsewhere = fixture
            .machine
            .usage("elsewhere", usage.dataset(), &usage.publish_context);
        // The only read of Flocker happens with the volume's lock held.
        let last_look = hold(Effect::HoldRequest).on("GET", LEASES).once();
        for unpublish_while_waiting in [true, false] {
            faults.add(last_look.clone());
            let (caller, staging) = (csi.clone(), elsewhere.clone());
            let staging = tokio::spawn(async move { caller.stage(&staging).await });
            faults.until_met(HELD, 1).await;

            let (caller, publishing) = (csi.clone(), usage.clone());
            let publishing = tokio::spawn(async move { caller.publish(&publishing).await });
            wait_until_publishing(csi, &usage, "another operation on the volume").await;
            publishing.abort();
            let impatient = within(Duration::from_millis(300), usage.to_unpublish());
            if unpublish_while_waiting {
                assert_refused(
                    csi.node().node_unpublish_volume(impatient).await,
                    Code::Unavailable,
                    &[&usage.volume_id, "another operation on the volume"],
                );
            }
            faults.remove(HELD);
            staging.await.unwrap().unwrap();
            if !unpublish_while_waiting {
                wait_until_publishing(csi, &usage, "waiting for a caller").await;
            }
            assert!(Mounts::read().at(&usage.target).is_empty());
            csi.unpublish(&usage).await.unwrap();
            assert!(!usage.target.exists());
            csi.publish(&usage).await.unwrap();
            only_mount_at(&usage.target);
            csi.unpublish(&usage).await.unwrap();
            csi.unstage(&elsewhere).await.unwrap();
        }
    });
}
