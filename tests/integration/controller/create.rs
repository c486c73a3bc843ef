//! `CreateVolume` and `GetCapacity`.

use std::time::Duration;

use csi_proto::v1::controller_server::Controller;
use csi_proto::v1::{DeleteVolumeRequest, GetCapacityRequest};
use flocker_client::NewDataset;
use flocker_csi::config::Endpoint;
use flocker_csi::flocker::provisioning::{Pool, ProvisionWait, ProvisioningSettings};
use flocker_csi::volume::{Namespace, Parameters, VolumeName, metadata};
use flocker_embedded::Options;
use futures::future::join_all;
use tokio::time::timeout;
use tonic::{Code, Request};
use uuid::Uuid;

use super::{
    DRIVER, MIB, controller, controller_keeping, controller_on, create, delete, only, publish, settings,
    wanted, within,
};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

const DATASETS: &str = "/v1/configuration/datasets";

#[test]
fn equal_calls_on_two_processes_make_one_dataset() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controllers = [controller(&flocker, settings()), controller(&flocker, settings())];
        let calls = (0..64).map(|number| create(&controllers[number % 2], wanted("pvc-1", 64)));
        let volumes: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        assert!(
            volumes.iter().all(|volume| *volume == volumes[0]),
            "64 equal answers"
        );
        assert_eq!(volumes[0].capacity_bytes, 64 * MIB);
        assert_eq!(flocker.embedded().counters().answered("POST", DATASETS, 201), 1);
        assert_eq!(flocker.backing_files().len(), 1);
        flocker.stop().await;
    });
}

#[test]
fn a_name_that_is_made_again_gets_the_published_ids() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        for (name, ids) in published_ids() {
            for id in ids {
                let volume = create(&controller, wanted(&name, 64)).await.unwrap();
                assert_eq!(volume.volume_id, id);
                delete(&controller, &volume.volume_id).await.unwrap();
            }
        }
        assert!(flocker.backing_files().is_empty());
        flocker.stop().await;
    });
}

/// Returns the names of docs/volume-ids.md with their ids for generations 0, 1, 2.
fn published_ids() -> Vec<(String, Vec<String>)> {
    let page = include_str!("../../../docs/volume-ids.md");
    let mut names: Vec<(String, Vec<String>)> = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line
            .split('|')
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect();
        if names.last().is_none_or(|(name, _)| *name != cells[1]) {
            names.push((cells[1].clone(), Vec::new()));
        }
        let ids = &mut names.last_mut().unwrap().1;
        assert_eq!(cells[2], ids.len().to_string(), "generations are listed in order");
        ids.push(cells[3].clone());
    }
    assert_eq!(names.len(), 2);
    names
}

#[test]
fn the_same_name_is_the_same_volume_only_if_it_will_do() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        let first = create(&controller, wanted("data", 100)).await.unwrap();
        assert_eq!(create(&controller, wanted("data", 100)).await.unwrap(), first);
        assert_eq!(
            create(&controller, wanted("data", 0)).await.unwrap(),
            first,
            "any size will do"
        );

        let larger = create(&controller, wanted("data", 200)).await.unwrap_err();
        assert_eq!(larger.code(), Code::AlreadyExists);
        assert!(
            larger.message().contains("104857600 bytes (100 MiB)"),
            "{}",
            larger.message()
        );
        let mut gold = wanted("data", 100);
        gold.parameters.insert("profile".to_owned(), "gold".to_owned());
        let gold = create(&controller, gold).await.unwrap_err();
        assert_eq!(gold.code(), Code::AlreadyExists);
        assert!(gold.message().contains("profile \"gold\""), "{}", gold.message());
        flocker.stop().await;
    });
}

#[test]
fn a_name_that_another_client_of_flocker_uses_is_refused() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let foreign = NewDataset {
            dataset_id: None,
            primary: flocker.node(1),
            maximum_size: Some(64 << 20),
            metadata: [("name".to_owned(), "postgres".to_owned())].into(),
        };
        let foreign = flocker.client().await.create_dataset(&foreign).await.unwrap();
        let refused = create(&controller(&flocker, settings()), wanted("postgres", 64))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists);
        assert!(
            refused.message().contains(&foreign.dataset_id.to_string()),
            "{}",
            refused.message()
        );
        flocker.stop().await;
    });
}

#[test]
fn volumes_are_spread_over_the_nodes_and_stay_on_the_node_of_a_plugin_of_one() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(3).await;
        let of_cluster = controller(&flocker, settings());
        let calls = (0..6).map(|number| create(&of_cluster, wanted(&format!("spread-{number}"), 64)));
        assert!(join_all(calls).await.iter().all(Result::is_ok));
        let of_node = controller(
            &flocker,
            ProvisioningSettings {
                scope: only(flocker.node(2)),
                ..settings()
            },
        );
        create(&of_node, wanted("here", 64)).await.unwrap();

        let datasets = flocker.datasets().await;
        let on = |number: usize| {
            datasets
                .iter()
                .filter(|dataset| dataset.primary == flocker.node(number))
                .count()
        };
        assert_eq!([on(1), on(2), on(3)], [2, 3, 2]);
        flocker.stop().await;
    });
}

#[test]
fn an_unfinished_create_says_what_is_missing_and_a_deletion_ends_it() {
    in_own_namespace(|| async {
        // Flocker accepts every request; a volume above the capacity is never backed.
        let mut flocker = Flocker::with(|options| Options {
            capacity: Some(64 << 20),
            ..options
        })
        .await;
        let node = flocker.node(1);
        let controller = controller(&flocker, settings());
        let impatient = controller.create_volume(within(Duration::from_secs(2), wanted("big", 128)));
        let unfinished = impatient.await.unwrap_err();
        assert_eq!(unfinished.code(), Code::DeadlineExceeded);
        let phase = format!("\"backing volume\": node {node}");
        assert!(unfinished.message().contains(&phase), "{}", unfinished.message());

        let datasets = flocker.datasets().await;
        let volume_id = datasets[0].dataset_id.to_string();
        let request = DeleteVolumeRequest {
            volume_id,
            ..Default::default()
        };
        let (joined, deleted) = tokio::join!(
            create(&controller, wanted("big", 128)),
            controller.delete_volume(Request::new(request))
        );
        assert_eq!(joined.unwrap_err().code(), Code::Cancelled);
        deleted.unwrap();
        assert_eq!(flocker.embedded().counters().answered("POST", DATASETS, 201), 1);
        flocker.stop().await;
    });
}

#[test]
fn a_create_continues_without_its_caller_and_the_next_caller_gets_the_result() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controller = controller(&flocker, settings());
        let dropped = timeout(Duration::from_millis(1), create(&controller, wanted("pvc-1", 64))).await;
        let volume = create(&controller, wanted("pvc-1", 64)).await.unwrap();
        assert!(dropped.is_err() || dropped.unwrap().unwrap() == volume);
        assert_eq!(flocker.embedded().counters().answered("POST", DATASETS, 201), 1);
        flocker.stop().await;
    });
}

#[test]
fn a_volume_without_backing_moves_on_when_its_node_is_dead() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        // The dataset of a create whose node died before it made the backing volume.
        let name = VolumeName::parse("pvc-1").unwrap();
        let declared = NewDataset {
            dataset_id: Some(Namespace::new(DRIVER).dataset_id(&name, 0)),
            primary: Uuid::new_v4(),
            maximum_size: Some(64 << 20),
            metadata: metadata(DRIVER, &name, 0, &Parameters::default()).unwrap(),
        };
        let client = flocker.client().await;
        let declared = client.create_dataset(&declared).await.unwrap();

        let controller = controller_on(flocker.cluster_with_grace(Duration::from_secs(1)), settings());
        let volume = create(&controller, wanted("pvc-1", 64)).await.unwrap();
        assert_eq!(volume.volume_id, declared.dataset_id.to_string());
        assert_eq!(flocker.backing_files().len(), 1);
        let datasets = client.list_datasets().await.unwrap().datasets;
        assert_eq!(datasets[0].primary, flocker.node(1));
        flocker.stop().await;
    });
}

#[test]
fn a_declared_volume_is_there_at_once() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::with(|options| Options {
            capacity: Some(64 << 20),
            ..options
        })
        .await;
        let declared = ProvisioningSettings {
            provision_wait: ProvisionWait::Declared,
            ..settings()
        };
        let volume = create(&controller(&flocker, declared), wanted("later", 128))
            .await
            .unwrap();
        assert_eq!(volume.capacity_bytes, 128 * MIB);
        assert!(flocker.backing_files().is_empty(), "it is never backed");
        flocker.stop().await;
    });
}

fn pool(profile: Option<&str>, mib: u64) -> Pool {
    Pool {
        profile: profile.map(str::to_owned),
        capacity: mib << 20,
        per_node: false,
    }
}

#[test]
fn a_full_pool_is_found_before_anything_is_made() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let pools = vec![pool(None, 200), pool(Some("gold"), 64)];
        let controller = controller(&flocker, ProvisioningSettings { pools, ..settings() });
        create(&controller, wanted("first", 128)).await.unwrap();

        let full = create(&controller, wanted("second", 128)).await.unwrap_err();
        assert_eq!(full.code(), Code::ResourceExhausted);
        assert!(
            full.message()
                .contains("has 72 MiB left, the volume needs 128 MiB"),
            "{}",
            full.message()
        );
        let never = create(&controller, wanted("third", 201)).await.unwrap_err();
        assert_eq!(never.code(), Code::OutOfRange);
        assert!(
            never.message().contains("only 200 MiB in all"),
            "{}",
            never.message()
        );
        let calls = (0..8).map(|number| create(&controller, wanted(&format!("at-once-{number}"), 64)));
        let made = join_all(calls).await.into_iter().flatten().count();
        assert_eq!(
            made, 1,
            "creates at the same time do not overfill the pool together"
        );
        flocker.stop().await;
    });
}

#[test]
fn the_capacity_is_the_pools_free_space_and_zero_for_impossible_volumes() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(2).await;
        let state_dir = tempfile::tempdir().unwrap();
        let pools = vec![
            pool(None, 1000),
            Pool {
                per_node: true,
                ..pool(Some("gold"), 500)
            },
        ];
        let with_pools = ProvisioningSettings { pools, ..settings() };
        let controller = controller_keeping(flocker.cluster(), with_pools, Some(state_dir.path()));
        let capacity = async |key: &str, value: &str| {
            let parameters = [(key.to_owned(), value.to_owned())].into();
            let request = GetCapacityRequest {
                parameters,
                ..Default::default()
            };
            controller
                .get_capacity(Request::new(request))
                .await
                .unwrap()
                .into_inner()
        };
        let volume = create(&controller, wanted("data", 100)).await.unwrap();
        let any = capacity("metadata.team", "db").await;
        assert_eq!(any.available_capacity, 900 * MIB);
        assert_eq!(
            (any.maximum_volume_size, any.minimum_volume_size),
            (Some(900 * MIB), Some(64 * MIB))
        );
        let gold = capacity("profile", "gold").await;
        assert_eq!(
            (gold.available_capacity, gold.maximum_volume_size),
            (1000 * MIB, Some(500 * MIB))
        );
        assert_eq!(capacity("profile", "silver").await.available_capacity, 0);
        assert_eq!(capacity("profil", "gold").await.available_capacity, 0);

        publish(&controller, &volume.volume_id, flocker.node(1))
            .await
            .unwrap();
        flocker.stop().await;
        assert_eq!(
            capacity("metadata.team", "db").await.available_capacity,
            900 * MIB,
            "the last known value"
        );
        assert_eq!(capacity("profile", "gold").await.available_capacity, 1000 * MIB);
    });
}

#[test]
fn two_plugin_processes_asked_for_one_name_at_once_make_one_volume() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        let one = machine.process(&["--mode=controller"]).await;
        machine.config.plugin.endpoint = Endpoint::Unix(machine.path("second.sock"));
        let two = machine.process(&["--mode=controller"]).await;
        let calls = (0..32).flat_map(|_| [one.csi.create("data"), two.csi.create("data")]);
        let volumes = join_all(calls).await;
        assert_eq!(volumes.len(), 64);
        assert!(volumes.iter().all(|volume| *volume == volumes[0]), "{volumes:?}");
        let counters = flocker.embedded().counters();
        assert_eq!(counters.answered("POST", DATASETS, 201), 1);
        assert_eq!(flocker.backing_files().len(), 1);
        one.kill().await;
        two.kill().await;
    });
}
