//! `DeleteVolume`.

use std::time::Duration;

use csi_proto::v1::DeleteVolumeRequest;
use csi_proto::v1::controller_server::Controller;
use flocker_client::{Dataset, NewDataset};
use tonic::Code;
use uuid::Uuid;

use super::{controller, controller_on, create, delete, list, publish, settings, unpublish, wanted, within};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

#[test]
fn a_leased_volume_is_not_deleted() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(2).await;
        let controller = controller(&flocker, settings());
        let volume = create(&controller, wanted("data", 64)).await.unwrap();
        publish(&controller, &volume.volume_id, flocker.node(2))
            .await
            .unwrap();

        let refused = delete(&controller, &volume.volume_id).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(
            refused.message().contains(&flocker.node(2).to_string()),
            "{}",
            refused.message()
        );
        assert_eq!(list(&controller, 0, "").await.unwrap().entries.len(), 1);

        unpublish(&controller, &volume.volume_id, "").await.unwrap();
        delete(&controller, &volume.volume_id).await.unwrap();
        assert!(list(&controller, 0, "").await.unwrap().entries.is_empty());
        // The reported state flickers while a dataset moves, so the answer may come before the file is removed.
        eventually("the file of the deleted volume goes", async || {
            flocker.backing_files().is_empty().then_some(())
        })
        .await;
        delete(&controller, &volume.volume_id).await.unwrap();
        flocker.stop().await;
    });
}

#[test]
fn a_volume_that_does_not_exist_counts_as_deleted_and_unpublished() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        let odd = [
            "fake-vol-id",
            "0",
            "日本",
            "0FBBD6E1-F558-4EA3-B2FE-B0268D12322A",
            &"x".repeat(4095),
        ];
        let unknown = "0fbbd6e1-f558-4ea3-b2fe-b0268d12322a";
        for volume_id in odd.into_iter().chain([unknown]) {
            delete(&controller, volume_id).await.unwrap();
            for node_id in ["", "fake-node-id", unknown] {
                unpublish(&controller, volume_id, node_id).await.unwrap();
            }
        }
        flocker.stop().await;
    });
}

const DATASET: &str = "/v1/configuration/datasets/{dataset_id}";

/// Makes a dataset on a node that never reports.
async fn on_a_lost_node(flocker: &Flocker) -> Dataset {
    let new = NewDataset {
        dataset_id: None,
        primary: Uuid::new_v4(),
        maximum_size: Some(64 << 20),
        metadata: [].into(),
    };
    flocker.client().await.create_dataset(&new).await.unwrap()
}

#[test]
fn nothing_is_deleted_while_the_node_that_would_destroy_it_does_not_report() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let dataset = on_a_lost_node(&flocker).await;
        let volume_id = dataset.dataset_id.to_string();
        let request = DeleteVolumeRequest {
            volume_id,
            ..Default::default()
        };
        let controller = controller(&flocker, settings());
        let waiting = controller.delete_volume(within(Duration::from_secs(2), request));
        let waiting = waiting.await.unwrap_err();
        assert_eq!(waiting.code(), Code::Unavailable);
        for part in [
            "\"node reporting\"",
            &dataset.primary.to_string(),
            &dataset.dataset_id.to_string(),
        ] {
            assert!(waiting.message().contains(part), "{}", waiting.message());
        }
        assert_eq!(flocker.embedded().counters().asked("DELETE", DATASET), 0);
        flocker.stop().await;
    });
}

#[test]
fn a_volume_of_a_dead_node_is_destroyed_by_another_node() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let dataset = on_a_lost_node(&flocker).await;
        let controller = controller_on(flocker.cluster_with_grace(Duration::from_secs(1)), settings());
        delete(&controller, &dataset.dataset_id.to_string())
            .await
            .unwrap();
        let datasets = flocker.datasets().await;
        assert_eq!(
            (datasets[0].deleted, datasets[0].primary),
            (true, flocker.node(1))
        );
        flocker.stop().await;
    });
}

#[test]
fn a_leased_volume_stays_on_its_dead_node() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let dataset = on_a_lost_node(&flocker).await;
        let holder = Uuid::new_v4();
        flocker
            .client()
            .await
            .acquire_lease(dataset.dataset_id, holder, None)
            .await
            .unwrap();
        let controller = controller_on(flocker.cluster_with_grace(Duration::from_secs(1)), settings());
        let refused = delete(&controller, &dataset.dataset_id.to_string())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(
            refused.message().contains(&holder.to_string()),
            "{}",
            refused.message()
        );
        assert_eq!(flocker.embedded().counters().asked("POST", DATASET), 0);
        flocker.stop().await;
    });
}
