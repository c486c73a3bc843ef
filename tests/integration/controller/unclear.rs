//! Creations whose request was sent and whose outcome is not known.

use flocker_client::NewDataset;
use flocker_embedded::faults::{Effect, RequestFault};
use tonic::Code;
use uuid::Uuid;

use super::{controller, create, settings, wanted};
use crate::node::assert_refused;
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

const DATASETS: &str = "/v1/configuration/datasets";

/// Declares a dataset of other origin that carries the name of a volume.
async fn declare_namesake(flocker: &Flocker, name: &str) -> Uuid {
    let namesake = NewDataset {
        dataset_id: Some(Uuid::new_v4()),
        primary: flocker.node(1),
        maximum_size: Some(64 << 20),
        metadata: [("name".to_owned(), name.to_owned())].into(),
    };
    let declared = flocker.client().await.create_dataset(&namesake).await.unwrap();
    declared.dataset_id
}

fn lost_requests() -> RequestFault {
    RequestFault::new("lost", Effect::LoseRequest).on("POST", DATASETS)
}

#[test]
fn a_creation_that_may_still_be_carried_out_is_not_refused_for_what_was_declared_since() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        let faults = flocker.embedded().faults();
        faults.add(lost_requests().once());
        faults.add(RequestFault {
            after: 1,
            ..RequestFault::new("second read", Effect::HoldRequest)
                .on("GET", DATASETS)
                .once()
        });
        let intrude = async {
            faults.until_met("second read", 1).await;
            let namesake = declare_namesake(&flocker, "pvc-1").await;
            faults.clear();
            namesake
        };
        let (created, namesake) = tokio::join!(create(&controller, wanted("pvc-1", 64)), intrude);
        assert_refused(
            created,
            Code::Unavailable,
            &["pvc-1", "may exist", &namesake.to_string()],
        );

        flocker.client().await.delete_dataset(namesake).await.unwrap();
        create(&controller, wanted("pvc-1", 64)).await.unwrap();
    });
}

#[test]
fn a_repeated_creation_is_not_refused_as_long_as_the_first_one_may_be_carried_out() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        let faults = flocker.embedded().faults();
        faults.add(lost_requests());
        let created = create(&controller, wanted("pvc-1", 64)).await;
        assert_refused(created, Code::Unavailable, &["pvc-1"]);
        faults.clear();

        let namesake = declare_namesake(&flocker, "pvc-1").await;
        let created = create(&controller, wanted("pvc-1", 64)).await;
        assert_refused(created, Code::Unavailable, &["may exist", &namesake.to_string()]);
        flocker.client().await.delete_dataset(namesake).await.unwrap();

        let refusal = Effect::Answer {
            status: 400,
            body: r#"{"description": "The provided JSON doesn't match the required schema.", "errors": ["odd"]}"#
                .to_owned(),
        };
        faults.add(RequestFault::new("refusal", refusal).on("POST", DATASETS));
        let created = create(&controller, wanted("pvc-1", 64)).await;
        assert_refused(created, Code::Unavailable, &["may exist", "status 400"]);
        // A volume that was never asked for is refused for good.
        let created = create(&controller, wanted("pvc-2", 64)).await;
        assert_refused(created, Code::Internal, &["status 400"]);
        faults.clear();
        create(&controller, wanted("pvc-1", 64)).await.unwrap();
    });
}

#[test]
fn a_creation_that_was_answered_is_refused_like_any_other() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        flocker.embedded().faults().add(lost_requests().once());
        create(&controller, wanted("pvc-1", 64)).await.unwrap();
        let larger = create(&controller, wanted("pvc-1", 128)).await;
        assert_refused(larger, Code::AlreadyExists, &["pvc-1"]);
    });
}
