//! The life of datasets: creation, mounting, moving, deletion, and what delays them.

use host_fs::mount::testing::unmount;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

use flocker_embedded::{Options, Timing};
use rustix::mount::mount_bind;
use serde_json::json;

use crate::support::{
    Cluster, SIZE, alias, eventually, for_a_while, isolated, loop_devices, mount_points, options,
};

#[test]
fn a_new_dataset_is_an_empty_ext4_that_all_users_may_write_to() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let dataset = cluster.create_mounted(1).await;
        let path = cluster.path(1, dataset);
        eventually("all users may write to the root", async || {
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777 == 0o777
        })
        .await;
        assert_eq!(
            fs::read_dir(&path).unwrap().count(),
            0,
            "lost+found has been removed"
        );
        assert!(mount_points().contains(&path));
        let backing = directory.join("data/volumes").join(dataset.to_string());
        assert_eq!(fs::metadata(&backing).unwrap().len(), SIZE);
        assert_eq!(loop_devices(&directory).len(), 1);
        let root = cluster.node(1).mount_root.clone();
        assert_eq!(fs::metadata(root).unwrap().permissions().mode() & 0o7777, 0o700);
    });
}

#[test]
fn a_move_takes_the_data_along_and_leaves_the_directory() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 2).await;
        let dataset = cluster.create_mounted(1).await;
        fs::write(cluster.path(1, dataset).join("file"), "content").unwrap();

        cluster.relocate(dataset, 2).await;
        cluster.wait_until_on(2, dataset).await;
        let file = cluster.path(2, dataset).join("file");
        assert_eq!(fs::read_to_string(file).unwrap(), "content");
        assert!(
            cluster.path(1, dataset).is_dir(),
            "mount directories are never removed"
        );
        assert!(!mount_points().contains(&cluster.path(1, dataset)));
        assert_eq!(loop_devices(&directory).len(), 1);
    });
}

#[test]
fn a_deleted_dataset_leaves_neither_file_nor_device_but_its_id_stays_in_use() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let dataset = cluster.create_mounted(1).await;
        cluster.delete(dataset).await;
        cluster.wait_until_state(dataset, None).await;
        assert!(loop_devices(&directory).is_empty());
        assert_eq!(fs::read_dir(directory.join("data/volumes")).unwrap().count(), 0);

        let again = json!({"dataset_id": dataset, "primary": cluster.node(1).uuid});
        assert_eq!(
            cluster
                .client
                .post("/v1/configuration/datasets", &again)
                .await
                .status,
            409
        );
    });
}

#[test]
fn a_move_to_a_node_that_does_not_exist_leaves_the_dataset_detached_until_it_is_moved_back() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let dataset = cluster.create_mounted(1).await;
        let path = format!("/v1/configuration/datasets/{dataset}");
        let nowhere = json!({"primary": uuid::Uuid::new_v4()});
        assert_eq!(cluster.client.post(&path, &nowhere).await.status, 200);
        let detached = json!({"dataset_id": dataset, "maximum_size": SIZE});
        cluster.wait_until_state(dataset, Some(detached)).await;

        cluster.relocate(dataset, 1).await;
        cluster.wait_until_on(1, dataset).await;
    });
}

#[test]
fn a_lease_delays_a_move_until_it_is_released() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 2).await;
        let dataset = cluster.create_mounted(1).await;
        assert_eq!(cluster.lease(dataset, 1).await.status, 201);
        cluster.relocate(dataset, 2).await;
        let before = cluster.state(dataset).await;
        for_a_while("the leased dataset stays", async || {
            cluster.state(dataset).await == before
        })
        .await;

        assert_eq!(cluster.release(dataset).await.status, 200);
        cluster.wait_until_on(2, dataset).await;
    });
}

#[test]
fn a_lease_that_has_ended_no_longer_delays_a_move() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 2).await;
        let dataset = cluster.create_mounted(1).await;
        let node = cluster.node(1).uuid;
        let short = json!({"dataset_id": dataset, "node_uuid": node, "expires": 0.5});
        assert_eq!(
            cluster
                .client
                .post("/v1/configuration/leases", &short)
                .await
                .status,
            201
        );
        cluster.relocate(dataset, 2).await;
        cluster.wait_until_on(2, dataset).await;
        assert_eq!(
            cluster.client.get("/v1/configuration/leases").await.json(),
            json!([])
        );
    });
}

#[test]
fn an_open_file_delays_a_move_until_it_is_closed() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 2).await;
        let dataset = cluster.create_mounted(1).await;
        let file = File::create(cluster.path(1, dataset).join("file")).unwrap();
        cluster.relocate(dataset, 2).await;
        let before = cluster.state(dataset).await;
        for_a_while("the busy dataset stays", async || {
            cluster.state(dataset).await == before
        })
        .await;

        drop(file);
        cluster.wait_until_on(2, dataset).await;
    });
}

#[test]
fn a_busy_dataset_does_not_delay_the_others() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 2).await;
        let busy = cluster.create_mounted(1).await;
        let _file = File::create(cluster.path(1, busy).join("file")).unwrap();
        cluster.delete(busy).await;

        let other = cluster.create_mounted(1).await;
        cluster.relocate(other, 2).await;
        cluster.wait_until_on(2, other).await;
        assert!(cluster.state(busy).await.is_some());
    });
}

#[test]
fn a_dataset_that_cannot_be_examined_delays_no_other() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 2).await;
        let broken = cluster.create_mounted(1).await;
        let backing = directory.join("data/volumes").join(broken.to_string());
        let moved = directory.join("moved");
        fs::rename(&backing, &moved).unwrap();
        unmount(cluster.path(1, broken));
        let unmounted = json!({"dataset_id": broken, "maximum_size": SIZE});
        cluster.wait_until_state(broken, Some(unmounted)).await;

        let other = cluster.create_mounted(1).await;
        cluster.relocate(other, 2).await;
        cluster.wait_until_on(2, other).await;
        assert_eq!(loop_devices(&directory).len(), 2, "no device is freed");

        fs::rename(&moved, &backing).unwrap();
        cluster.wait_until_on(1, broken).await;
    });
}

#[test]
fn a_plain_bind_mount_hides_the_dataset_from_the_agent_and_ends_the_protection_of_its_lease() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 2).await;
        let dataset = cluster.create_mounted(1).await;
        assert_eq!(cluster.lease(dataset, 1).await.status, 201);
        let target = directory.join("target");
        fs::create_dir(&target).unwrap();
        mount_bind(cluster.path(1, dataset), &target).unwrap();
        let unmounted = json!({"dataset_id": dataset, "maximum_size": SIZE});
        cluster.wait_until_state(dataset, Some(unmounted.clone())).await;

        // The agent frees the device under both mounts. The kernel keeps it for them, so no other node gets the
        // backing file.
        cluster.relocate(dataset, 2).await;
        for_a_while("no other node has it mounted", async || {
            !mount_points().contains(&cluster.path(2, dataset)) && loop_devices(&directory).len() == 1
        })
        .await;

        unmount(&target);
        cluster.release(dataset).await;
        cluster.wait_until_on(2, dataset).await;
        assert_eq!(loop_devices(&directory).len(), 1);
    });
}

#[test]
fn a_second_mount_under_another_name_does_not_hide_the_dataset() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 2).await;
        let dataset = cluster.create_mounted(1).await;
        fs::write(cluster.path(1, dataset).join("file"), "content").unwrap();
        let alias = alias(&cluster.path(1, dataset), &directory);
        let before = cluster.state(dataset).await;
        for_a_while("state keeps the path", async || {
            cluster.state(dataset).await == before
        })
        .await;

        // Without lease or open file the agent unmounts its own mount, but the device stays attached, and with it the
        // dataset, until the other mount ends.
        cluster.relocate(dataset, 2).await;
        eventually("the agent unmounts", async || {
            !mount_points().contains(&cluster.path(1, dataset))
        })
        .await;
        for_a_while("no other node has it", async || {
            !mount_points().contains(&cluster.path(2, dataset)) && loop_devices(&directory).len() == 1
        })
        .await;
        assert_eq!(fs::read_to_string(alias.join("file")).unwrap(), "content");

        unmount(&alias);
        cluster.wait_until_on(2, dataset).await;
    });
}

#[test]
fn what_exceeds_the_capacity_is_configured_but_never_backed() {
    isolated(async |directory| {
        let capacity = Some(SIZE + SIZE / 2);
        let cluster = Cluster::start_with(Options {
            capacity,
            ..options(&directory)
        })
        .await;
        let first = cluster.create_mounted(1).await;
        assert_eq!(cluster.flocker.free_capacity(), SIZE / 2);

        let second = cluster.create(1, SIZE).await;
        assert_eq!(cluster.flocker.free_capacity(), 0);
        for_a_while("it is not backed", async || cluster.state(second).await.is_none()).await;

        cluster.delete(first).await;
        cluster.wait_until_on(1, second).await;
    });
}

#[test]
fn at_the_stock_timing_a_mount_exists_long_before_it_is_reported() {
    isolated(async |directory| {
        let timing = Timing::Stock;
        let cluster = Cluster::start_with(Options {
            timing,
            ..options(&directory)
        })
        .await;
        eventually("the node reports", async || {
            cluster.client.get("/v1/state/nodes").await.json() != json!([])
        })
        .await;
        let dataset = cluster.create(1, SIZE).await;
        eventually("it is mounted", async || {
            mount_points().contains(&cluster.path(1, dataset))
        })
        .await;
        let unmounted = json!({"dataset_id": dataset, "maximum_size": SIZE});
        assert_eq!(cluster.state(dataset).await, Some(unmounted));
        cluster.wait_until_on(1, dataset).await;
    });
}

#[test]
fn many_datasets_converge_together() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 2).await;
        let mut datasets = Vec::new();
        for number in 0..12 {
            datasets.push(cluster.create(1 + number % 2, SIZE).await);
        }
        for (number, dataset) in datasets.iter().enumerate() {
            cluster.wait_until_on(1 + number % 2, *dataset).await;
        }
        assert_eq!(loop_devices(&directory).len(), 12);
        for dataset in &datasets {
            cluster.delete(*dataset).await;
        }
        eventually("all are detached", async || loop_devices(&directory).is_empty()).await;
        assert_eq!(
            cluster
                .client
                .get("/v1/configuration/datasets")
                .await
                .json()
                .as_array()
                .unwrap()
                .len(),
            12
        );
    });
}
