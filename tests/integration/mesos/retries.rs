//! The calls that Mesos repeats, and those that it does not.

use std::time::Duration;

use flocker_embedded::faults::{Effect, RequestFault};
use tonic::Code;

use super::agent::{CAPACITY, MIB};
use super::rpc::Calls;
use super::types::Api;
use super::{Fixture, LOOK, assert_failed, both, calls};
use crate::support::eventually;

const DATASETS: &str = "/v1/configuration/datasets";
const DATASET: &str = "/v1/configuration/datasets/{dataset_id}";

both!(
    volumes_are_made_and_deleted_however_often_flocker_fails_first,
    a_volume_that_takes_longer_than_the_callers_have_is_made_once,
    an_operation_that_cannot_be_repeated_fails_at_once,
);

impl Fixture {
    /// Makes one kind of request to Flocker fail until Mesos has made a call three times.
    async fn fail_until_repeated(&self, method: &str, route: &str, asked: Calls, call: &'static str) {
        let answer = Effect::Answer {
            status: 500,
            body: "\"a bug\"".to_owned(),
        };
        let faults = self.flocker.embedded().faults();
        faults.add(RequestFault::new("fails", answer).on(method, route));
        let mut made = Vec::new();
        eventually(&format!("{call} is called again"), async || {
            made.extend(asked.take_made());
            (made.len() >= 3).then_some(())
        })
        .await;
        assert!(
            made.iter().all(|made| *made == call),
            "nothing else during that time: {made:?}"
        );
        faults.remove("fails");
    }
}

/// Covers `StorageLocalResourceProviderTest.RetryRpcWithExponentialBackoff`, as far as errors go.
async fn volumes_are_made_and_deleted_however_often_flocker_fails_first(api: Api) {
    let mut fixture = Fixture::start(api).await;
    // The plugin waits through a failure of Flocker as long as its caller waits.
    fixture.agent.deadline_of_repeated = Some(Duration::from_millis(400));
    let mut provider = fixture.agent.provider().await.unwrap();
    for (method, route) in [("POST", DATASETS), ("GET", DATASETS)] {
        let asked = provider.manager.calls().clone();
        asked.take_made();
        let (created, ()) = tokio::join!(
            provider.create_disk("bronze", 64 * MIB),
            fixture.fail_until_repeated(method, route, asked.clone(), "CreateVolume"),
        );
        let id = created.unwrap();
        assert_eq!(provider.pool("bronze"), CAPACITY - 64 * MIB);
        asked.take_made();
        let (destroyed, ()) = tokio::join!(
            provider.destroy_disk(&id),
            fixture.fail_until_repeated("DELETE", DATASET, asked, "DeleteVolume"),
        );
        destroyed.unwrap();
        assert_eq!(provider.pool("bronze"), CAPACITY);
    }
    let datasets = fixture.flocker.datasets().await;
    let live = datasets.into_iter().filter(|dataset| !dataset.deleted);
    assert_eq!(live.count(), 0);
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.RetryRpcWithExponentialBackoff`, as far as deadlines go.
async fn a_volume_that_takes_longer_than_the_callers_have_is_made_once(api: Api) {
    let mut fixture = Fixture::start(api).await;
    fixture.agent.deadline_of_repeated = Some(Duration::from_secs(1));
    let mut provider = fixture.agent.provider().await.unwrap();
    let asked = provider.manager.calls().clone();
    asked.take_made();
    let faults = fixture.flocker.embedded().faults();
    faults.add(
        RequestFault::new("slow", Effect::HoldRequest)
            .on("POST", DATASETS)
            .once(),
    );
    let creating = tokio::spawn(async move {
        let created = provider.create_disk("bronze", 64 * MIB).await;
        (provider, created)
    });
    let mut made = Vec::new();
    eventually("Mesos asks for the third time", async || {
        made.extend(asked.take_made());
        (made.len() >= 3).then_some(())
    })
    .await;
    assert!(
        made.iter().all(|call| *call == "CreateVolume"),
        "nothing else during that time: {made:?}"
    );
    faults.remove("slow");
    let (mut provider, created) = creating.await.unwrap();
    let id = created.unwrap();
    let datasets = fixture.flocker.datasets().await;
    assert_eq!(datasets.len(), 1);
    assert_eq!(
        fixture.flocker.embedded().counters().asked("POST", DATASETS),
        1,
        "the calls joined"
    );
    provider.destroy_disk(&id).await.unwrap();
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.RetryRpcWithExponentialBackoff`, as far as other codes go.
async fn an_operation_that_cannot_be_repeated_fails_at_once(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut provider = fixture.agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    provider.calls();
    let refused = provider.create_disk("bronze", CAPACITY).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::ResourceExhausted));
    assert_eq!(provider.calls(), calls(&[&["CreateVolume"], &LOOK]));

    // Another client uses the volume, which the provider does not know.
    let (client, dataset) = (fixture.flocker.client().await, id.parse().unwrap());
    client
        .acquire_lease(dataset, fixture.flocker.node(2), None)
        .await
        .unwrap();
    let holder = fixture.flocker.node(2).to_string();
    assert_failed(
        provider.launch(&id).await,
        &["Failed to publish resources", &holder],
    );
    assert_eq!(
        provider.calls(),
        ["ControllerPublishVolume"],
        "it is not repeated"
    );
    assert_failed(
        provider.manager.delete(&id).await,
        &["FAILED_PRECONDITION", &holder],
    );
    assert_eq!(provider.calls(), ["ControllerUnpublishVolume", "DeleteVolume"]);
    client.release_lease(dataset).await.unwrap();
    provider.launch(&id).await.unwrap();
    provider.destroy_disk(&id).await.unwrap();
    fixture.plugin.stop().await;
}
