//! What a start finds, and what a stop leaves.

use host_fs::mount::testing::unmount;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::process::Command;

use flocker_embedded::{Embedded, Options};
use rustix::mount::mount_bind;
use serde_json::json;
use uuid::Uuid;

use crate::support::{Cluster, edit_state, eventually, isolated, loop_devices, mount_points, options};

#[test]
fn a_start_after_a_crash_adopts_mounts_and_loop_devices() {
    isolated(async |directory| {
        let first = Cluster::start(&directory, 2).await;
        let dataset = first.create_mounted(2).await;
        fs::write(first.path(2, dataset).join("file"), "content").unwrap();
        let (devices, nodes) = (loop_devices(&directory), first.flocker.nodes().to_vec());
        drop(first);

        let second = Cluster::start(&directory, 2).await;
        second.wait_until_on(2, dataset).await;
        assert_eq!(second.flocker.nodes(), nodes);
        assert_eq!(loop_devices(&directory), devices);
        assert_eq!(
            fs::read_to_string(second.path(2, dataset).join("file")).unwrap(),
            "content"
        );
        second.relocate(dataset, 1).await;
        second.wait_until_on(1, dataset).await;
    });
}

#[test]
fn a_start_after_a_reboot_attaches_what_is_configured() {
    isolated(async |directory| {
        let first = Cluster::start(&directory, 1).await;
        let dataset = first.create_mounted(1).await;
        fs::write(first.path(1, dataset).join("file"), "content").unwrap();
        let path = first.path(1, dataset);
        drop(first);
        unmount(&path);
        for (device, _) in loop_devices(&directory) {
            assert!(
                Command::new("losetup")
                    .arg("-d")
                    .arg(device)
                    .status()
                    .unwrap()
                    .success()
            );
        }
        eventually("nothing is attached", async || {
            loop_devices(&directory).is_empty()
        })
        .await;

        let second = Cluster::start(&directory, 1).await;
        second.wait_until_on(1, dataset).await;
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "content");
    });
}

#[test]
fn a_loop_device_without_a_record_of_its_node_is_adopted_too() {
    isolated(async |directory| {
        let first = Cluster::start(&directory, 1).await;
        let dataset = first.create_mounted(1).await;
        drop(first);
        edit_state(&directory, |state| state["attachments"] = json!({})).await;

        let second = Cluster::start(&directory, 1).await;
        second.wait_until_on(1, dataset).await;
        second.delete(dataset).await;
        second.wait_until_state(dataset, None).await;
        assert!(loop_devices(&directory).is_empty());
    });
}

#[test]
fn a_file_whose_old_loop_device_waits_for_its_last_mount_is_not_attached_again() {
    isolated(async |directory| {
        let first = Cluster::start(&directory, 1).await;
        let dataset = first.create_mounted(1).await;
        let path = first.path(1, dataset);
        let target = directory.join("target");
        fs::create_dir(&target).unwrap();
        mount_bind(&path, &target).unwrap();
        drop(first);
        unmount(&path);
        let devices = loop_devices(&directory);
        let (device, _) = &devices[0];
        assert!(
            Command::new("losetup")
                .arg("-d")
                .arg(device)
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(loop_devices(&directory), devices, "the mount keeps it");

        // Only the target's mount remains, so the device counts as attached and is mounted at the mount path too: the
        // same file system at two paths, not the same file on two devices.
        let second = Cluster::start(&directory, 1).await;
        second.wait_until_on(1, dataset).await;
        assert_eq!(loop_devices(&directory), devices);
        assert!(mount_points().contains(&target));
    });
}

#[test]
fn a_stop_detaches_unused_datasets_and_keeps_published_ones() {
    isolated(async |directory| {
        let first = Cluster::start(&directory, 2).await;
        let published = first.create_mounted(1).await;
        let idle = first.create_mounted(2).await;
        let target = directory.join("target");
        fs::create_dir(&target).unwrap();
        mount_bind(first.path(1, published), &target).unwrap();
        let kept = loop_devices(&directory)
            .into_iter()
            .find(|(_, file)| file.ends_with(published.to_string()))
            .unwrap();
        first.flocker.stop().await.unwrap();
        assert_eq!(loop_devices(&directory), [kept]);
        assert!(mount_points().contains(&target));

        unmount(&target);
        let second = Cluster::start(&directory, 2).await;
        second.wait_until_on(1, published).await;
        second.wait_until_on(2, idle).await;
        second.flocker.stop().await.unwrap();
        assert!(loop_devices(&directory).is_empty());
    });
}

#[test]
fn what_a_killed_process_has_not_finished_writing_is_removed_by_the_next() {
    isolated(async |directory| {
        drop(Cluster::start(&directory, 1).await);
        let (data, certificates) = (directory.join("data"), directory.join("certificates"));
        let directories = [&data, &data.join("pki/v1"), &data.join("volumes"), &certificates];
        let leftovers = directories.map(|directory| directory.join(".new-a1B2c3"));
        let others = directories.map(|directory| directory.join(".new-certificates"));
        for file in leftovers.iter().chain(&others) {
            fs::write(file, "half").unwrap();
        }

        let second = Cluster::start(&directory, 1).await;
        let left: Vec<_> = leftovers.iter().filter(|file| file.exists()).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(others.iter().all(|file| file.exists()));
        second.create_mounted(1).await;
    });
}

#[test]
fn a_data_directory_has_one_owner() {
    isolated(async |directory| {
        let first = Cluster::start(&directory, 1).await;
        let error = Embedded::start(options(&directory))
            .await
            .err()
            .unwrap()
            .to_string();
        let holder = format!("in use by process {}", std::process::id());
        assert!(error.contains(&holder), "{error}");
        drop(first);
        Cluster::start(&directory, 1).await;
    });
}

#[test]
fn a_port_in_use_is_named() {
    isolated(async |directory| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = listener.local_addr().unwrap();
        let error = Embedded::start(Options {
            listen,
            ..options(&directory)
        })
        .await
        .err()
        .unwrap();
        assert!(
            error
                .to_string()
                .contains(&format!("{listen}: the port is in use")),
            "{error}"
        );
    });
}

#[test]
fn the_api_listens_on_ipv6_too() {
    isolated(async |directory| {
        let listen = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let cluster = Cluster::start_with(Options {
            listen,
            ..options(&directory)
        })
        .await;
        assert!(cluster.flocker.address().is_ipv6());
        assert_eq!(cluster.client.get("/v1/version").await.status, 200);
    });
}

#[test]
fn eras_lead_to_nodes() {
    isolated(async |directory| {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let boot_id = format!("/v1/state/nodes/by_era/{}", boot_id.trim());
        let single = Cluster::start(&directory.join("single"), 1).await;
        let expected = json!({"uuid": single.node(1).uuid});
        assert_eq!(single.client.get(&boot_id).await.json(), expected);

        let era = Uuid::new_v4();
        let eras = BTreeMap::from([(2, era)]);
        let two = Options {
            nodes: 2,
            eras,
            ..options(&directory.join("two"))
        };
        let two = Cluster::start_with(two).await;
        assert_eq!(two.client.get(&boot_id).await.status, 404);
        let found = two
            .client
            .get(&format!(
                "/v1/state/nodes/by_era/{}",
                era.to_string().to_uppercase()
            ))
            .await;
        assert_eq!(found.json(), json!({"uuid": two.node(2).uuid}));
    });
}
