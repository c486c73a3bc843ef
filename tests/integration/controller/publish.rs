//! `ControllerPublishVolume`, `ControllerUnpublishVolume` and `ControllerGetVolume`.

use std::time::Duration;

use csi_proto::v1::ControllerGetVolumeRequest;
use csi_proto::v1::controller_get_volume_response::VolumeStatus;
use csi_proto::v1::controller_server::Controller;
use flocker_csi::controller::ControllerService;
use tonic::{Code, Request};
use uuid::Uuid;

use super::{controller, create, publish, settings, to_publish, unpublish, wanted, within};
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

async fn status(controller: &ControllerService, volume_id: &str) -> VolumeStatus {
    let request = ControllerGetVolumeRequest {
        volume_id: volume_id.to_owned(),
    };
    let answer = controller
        .controller_get_volume(Request::new(request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.volume.unwrap().volume_id, volume_id);
    answer.status.unwrap()
}

#[test]
fn a_volume_is_published_to_one_node_at_a_time() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(2).await;
        let (first, second) = (flocker.node(1), flocker.node(2));
        let controller = controller(&flocker, settings());
        let volume = create(&controller, wanted("data", 64)).await.unwrap().volume_id;
        let request = || Request::new(to_publish(&volume, &second.to_string()));
        let published = controller
            .controller_publish_volume(request())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            published.publish_context["flocker.csi.clusterhq.com/node"],
            second.to_string()
        );
        for _ in 0..10 {
            let again = controller
                .controller_publish_volume(request())
                .await
                .unwrap()
                .into_inner();
            assert_eq!(again, published, "ten times in a row");
        }
        // The reported state flickers while a dataset moves, and a volume that no node reports is abnormal.
        flocker.reports(2, volume.parse().unwrap()).await;
        let listed = status(&controller, &volume).await;
        assert_eq!(listed.published_node_ids, [second.to_string()]);
        assert!(!listed.volume_condition.unwrap().abnormal);

        let refused = publish(&controller, &volume, first).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(
            refused.message().contains(&format!("attached to node {second}")),
            "{}",
            refused.message()
        );

        unpublish(&controller, &volume, &first.to_string()).await.unwrap();
        assert_eq!(
            status(&controller, &volume).await.published_node_ids.len(),
            1,
            "only its own node's lease goes"
        );
        unpublish(&controller, &volume, &second.to_string())
            .await
            .unwrap();
        assert!(status(&controller, &volume).await.published_node_ids.is_empty());
        publish(&controller, &volume, first).await.unwrap();
        flocker.stop().await;
    });
}

#[test]
fn volumes_and_nodes_that_do_not_exist_are_not_found() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let node = flocker.node(1).to_string();
        let controller = controller(&flocker, settings());
        let volume = create(&controller, wanted("data", 64)).await.unwrap().volume_id;
        let stranger = Uuid::new_v4().to_string();
        for (volume_id, node_id, part) in [
            ("fake-vol-id-123", &*node, "fake-vol-id-123"),
            (&*stranger, &*node, &*stranger),
            (&*volume, "fake-node-id-123", "fake-node-id-123"),
        ] {
            let request = Request::new(to_publish(volume_id, node_id));
            let refused = controller.controller_publish_volume(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::NotFound, "{}", refused.message());
            assert!(refused.message().contains(part), "{}", refused.message());
        }
        for volume_id in ["fake-vol-id-123", &stranger] {
            let request = ControllerGetVolumeRequest {
                volume_id: volume_id.to_owned(),
            };
            let refused = controller
                .controller_get_volume(Request::new(request))
                .await
                .unwrap_err();
            assert_eq!(refused.code(), Code::NotFound, "{}", refused.message());
        }
        flocker.stop().await;
    });
}

#[test]
fn an_attachment_waits_for_a_node_that_does_not_report_until_the_inverse_call() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let silent = Uuid::new_v4().to_string();
        let controller = controller(&flocker, settings());
        let volume = create(&controller, wanted("data", 64)).await.unwrap().volume_id;
        let request = within(Duration::from_secs(2), to_publish(&volume, &silent));
        let unfinished = controller.controller_publish_volume(request).await.unwrap_err();
        assert_eq!(unfinished.code(), Code::Unavailable);
        assert!(
            unfinished.message().contains("\"node reporting\""),
            "{}",
            unfinished.message()
        );

        let request = Request::new(to_publish(&volume, &silent));
        let (joined, unpublished) = tokio::join!(
            controller.controller_publish_volume(request),
            unpublish(&controller, &volume, &silent)
        );
        assert_eq!(joined.unwrap_err().code(), Code::Cancelled);
        unpublished.unwrap();
        assert!(status(&controller, &volume).await.published_node_ids.is_empty());
        flocker.stop().await;
    });
}
