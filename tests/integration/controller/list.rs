//! `ListVolumes`.

use std::collections::BTreeSet;

use csi_proto::v1::ListVolumesResponse;
use flocker_client::NewDataset;
use flocker_csi::flocker::provisioning::ProvisioningSettings;
use futures::future::join_all;
use tonic::Code;
use uuid::Uuid;

use super::{controller, controller_keeping, create, delete, list, only, publish, settings, wanted};
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

const LISTS: [&str; 4] = [
    "/v1/configuration/datasets",
    "/v1/configuration/leases",
    "/v1/state/datasets",
    "/v1/state/nodes",
];

fn ids(page: &ListVolumesResponse) -> Vec<String> {
    page.entries
        .iter()
        .map(|entry| entry.volume.as_ref().unwrap().volume_id.clone())
        .collect()
}

#[test]
fn the_pages_of_a_list_cost_one_snapshot() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let client = flocker.client().await;
        let new = NewDataset {
            dataset_id: None,
            // No node has this id, so no storage is made.
            primary: Uuid::new_v4(),
            maximum_size: Some(64 << 20),
            metadata: [].into(),
        };
        let datasets = join_all((0..25).map(|_| client.create_dataset(&new))).await;
        let expected: BTreeSet<_> = datasets
            .into_iter()
            .map(|dataset| dataset.unwrap().dataset_id.to_string())
            .collect();
        let asked = || LISTS.map(|route| flocker.embedded().counters().asked("GET", route));

        let controller = controller(&flocker, settings());
        let before = asked();
        let (mut listed, mut token) = (Vec::new(), String::new());
        loop {
            let page = list(&controller, 4, &token).await.unwrap();
            listed.extend(ids(&page));
            token = page.next_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(
            listed,
            expected.into_iter().collect::<Vec<_>>(),
            "each once, ordered by id"
        );
        assert_eq!(asked(), before.map(|count| count + 1));
        flocker.stop().await;
    });
}

#[test]
fn a_token_outlives_its_volume() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        for name in ["a", "b", "c"] {
            create(&controller, wanted(name, 64)).await.unwrap();
        }
        let all = ids(&list(&controller, 0, "").await.unwrap());
        delete(&controller, &all[0]).await.unwrap();
        assert_eq!(ids(&list(&controller, 0, &all[0]).await.unwrap()), all[1..]);
        assert_eq!(ids(&list(&controller, 0, "").await.unwrap()), all[1..]);
        flocker.stop().await;
    });
}

#[test]
fn the_list_reports_sizes_leases_and_conditions() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let node = flocker.node(1);
        let controller = controller(&flocker, settings());
        let volume = create(&controller, wanted("data", 100)).await.unwrap();
        publish(&controller, &volume.volume_id, node).await.unwrap();
        let entry = list(&controller, 0, "").await.unwrap().entries.remove(0);
        assert_eq!(
            entry.volume.unwrap(),
            volume,
            "as it was answered when it was made"
        );
        let status = entry.status.unwrap();
        assert_eq!(status.published_node_ids, [node.to_string()]);
        assert!(!status.volume_condition.unwrap().abnormal);

        let stranger = Uuid::new_v4();
        let client = flocker.client().await;
        client
            .move_dataset(volume.volume_id.parse().unwrap(), stranger)
            .await
            .unwrap();
        let entry = list(&controller, 0, "").await.unwrap().entries.remove(0);
        let condition = entry.status.unwrap().volume_condition.unwrap();
        assert!(
            condition.abnormal && condition.message.contains(&stranger.to_string()),
            "{}",
            condition.message
        );
        flocker.stop().await;
    });
}

#[test]
fn while_flocker_is_down_the_last_list_is_returned_for_one_node_and_none_for_the_cluster() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(2).await;
        let state_dir = tempfile::tempdir().unwrap();
        let of_node = |number: usize| ProvisioningSettings {
            scope: only(flocker.node(number)),
            ..settings()
        };
        let keeping = |number: usize| {
            let directory = state_dir.path().join(number.to_string());
            controller_keeping(flocker.cluster(), of_node(number), Some(&directory))
        };
        let (first, second) = (keeping(1), keeping(2));
        let volume = create(&first, wanted("data", 64)).await.unwrap();
        assert_eq!(ids(&list(&first, 0, "").await.unwrap()), [&*volume.volume_id]);
        assert!(
            ids(&list(&second, 0, "").await.unwrap()).is_empty(),
            "it is another node's"
        );

        let restarted = keeping(1);
        let of_cluster = controller(&flocker, settings());
        let never_listed = controller(&flocker, of_node(1));
        flocker.stop().await;
        for controller in [&first, &restarted] {
            let page = list(controller, 0, "").await.unwrap();
            assert_eq!(page.entries[0].volume.as_ref().unwrap(), &volume);
        }
        assert!(list(&never_listed, 0, "").await.unwrap().entries.is_empty());
        assert_eq!(
            list(&of_cluster, 0, "").await.unwrap_err().code(),
            Code::Unavailable
        );
    });
}
