//! Names that are used again, after their datasets were deleted and are no longer listed.

use std::time::Duration;

use flocker_client::{Extensions, NewDataset};
use flocker_csi::flocker::provisioning::ProvisioningSettings;
use flocker_csi::volume::{Namespace, VolumeName};
use flocker_embedded::Options;
use flocker_embedded::faults::{Effect, RequestFault};
use tonic::Code;
use uuid::Uuid;

use super::{DRIVER, controller, create, delete, settings, wanted};
use crate::node::assert_refused;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

const DATASETS: &str = "/v1/configuration/datasets";

/// Starts a Flocker that lists what is deleted until it is destroyed.
async fn forgetful() -> Flocker {
    Flocker::with(|options| Options {
        deleted_listed_for: Duration::ZERO,
        ..options
    })
    .await
}

async fn until_listed(flocker: &Flocker, count: usize) {
    eventually("what is deleted is not listed", async || {
        (flocker.datasets().await.len() == count).then_some(())
    })
    .await;
}

fn id(generation: u32) -> Uuid {
    Namespace::new(DRIVER).dataset_id(&VolumeName::parse("data").unwrap(), generation)
}

#[test]
fn one_more_request_suffices_for_a_name_that_was_deleted_many_times() {
    in_own_namespace(|| async {
        let mut flocker = forgetful().await;
        let client = flocker.client().await;
        assert!(
            client
                .extensions()
                .await
                .unwrap()
                .contains(Extensions::TOMBSTONES)
        );
        let controller = controller(&flocker, settings());
        for generation in 0..4 {
            let volume = create(&controller, wanted("data", 64)).await.unwrap();
            assert_eq!(volume.volume_id, id(generation).to_string());
            delete(&controller, &volume.volume_id).await.unwrap();
            until_listed(&flocker, 0).await;
        }
        let counted = || {
            let counters = flocker.embedded().counters();
            [201, 409].map(|status| counters.answered("POST", DATASETS, status))
        };
        let (before, reads) = (counted(), flocker.embedded().counters().asked("GET", DATASETS));
        let volume = create(&controller, wanted("data", 64)).await.unwrap();
        assert_eq!(volume.volume_id, id(4).to_string());
        assert_eq!(counted(), [before[0] + 1, before[1] + 1]);
        assert_eq!(flocker.embedded().counters().asked("GET", DATASETS), reads + 1);

        // It is found although none of the generations before is listed, also with the size of the request checked.
        assert_eq!(create(&controller, wanted("data", 64)).await.unwrap(), volume);
        assert_eq!(counted(), [before[0] + 1, before[1] + 1]);
        assert_refused(
            create(&controller, wanted("data", 128)).await,
            Code::AlreadyExists,
            &["67108864 bytes"],
        );
        flocker.stop().await;
    });
}

#[test]
fn generations_of_another_namespace_are_not_those_of_this_one() {
    in_own_namespace(|| async {
        let mut flocker = forgetful().await;
        let of_another = ProvisioningSettings {
            namespace: Namespace::new("another"),
            ..settings()
        };
        let (here, there) = (controller(&flocker, settings()), controller(&flocker, of_another));
        for _ in 0..3 {
            let volume = create(&there, wanted("data", 64)).await.unwrap();
            delete(&there, &volume.volume_id).await.unwrap();
        }
        let volume = create(&here, wanted("data", 64)).await.unwrap();
        delete(&here, &volume.volume_id).await.unwrap();
        until_listed(&flocker, 0).await;
        let volume = create(&here, wanted("data", 64)).await.unwrap();
        assert_eq!(volume.volume_id, id(1).to_string());
        assert_eq!(create(&here, wanted("data", 64)).await.unwrap(), volume);
        flocker.stop().await;
    });
}

#[test]
fn an_id_that_is_in_use_and_not_listed_is_never_taken_for_deleted() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        let faults = flocker.embedded().faults();
        // As a cluster's Flocker answers.
        let conflict = Effect::Answer {
            status: 409,
            body: r#"{"description": "The provided dataset_id is already in use."}"#.to_owned(),
        };
        faults.add(RequestFault::new("conflict", conflict).on("POST", DATASETS));
        assert_refused(
            create(&controller, wanted("data", 64)).await,
            Code::Unavailable,
            &[&id(0).to_string(), "in use", "does not list"],
        );
        let requested = flocker.embedded().counters().asked("POST", DATASETS);
        assert!((2..=5).contains(&requested), "{requested}");
        faults.clear();
        let volume = create(&controller, wanted("data", 64)).await.unwrap();
        assert_eq!(volume.volume_id, id(0).to_string());
        flocker.stop().await;
    });
}

#[test]
fn a_live_dataset_with_the_id_is_compared_and_never_passed_over() {
    in_own_namespace(|| async {
        let mut flocker = forgetful().await;
        let controller = controller(&flocker, settings());
        let foreign = NewDataset {
            dataset_id: Some(id(0)),
            primary: flocker.node(1),
            maximum_size: Some(64 << 20),
            metadata: [].into(),
        };
        flocker.client().await.create_dataset(&foreign).await.unwrap();
        assert_refused(
            create(&controller, wanted("data", 64)).await,
            Code::AlreadyExists,
            &["another program"],
        );
        flocker.stop().await;
    });
}
