//! A data directory that the release before has written.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use uuid::Uuid;

use crate::support::{Cluster, isolated, loop_devices};

/// What is in the directory: tests/data/README.md.
const DELETED: Uuid = Uuid::from_u128(0xd000_0000_0000_4000_8000_0000_0000_0001);
const VOLUME: Uuid = Uuid::from_u128(0xd000_0000_0000_4000_8000_0000_0000_0002);
const NODE: &str = "4a578822-d659-4475-b693-01a2df8be8d7";
const CONTENT: &str = "of a database\n";

fn unpack(directory: &Path) {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/data-directory-0.1.tar.gz");
    let data = directory.join("data");
    fs::create_dir(&data).unwrap();
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(&data)
        .status();
    assert!(unpacked.unwrap().success());
}

#[test]
fn a_data_directory_of_the_release_before_is_used_with_its_volumes_and_data() {
    isolated(async |directory| {
        unpack(&directory);
        let state_file = directory.join("data/state.json");
        let before = fs::read(&state_file).unwrap();
        for run in 0..2 {
            let cluster = Cluster::start(&directory, 1).await;
            assert_eq!(cluster.node(1).uuid.to_string(), NODE);
            cluster.wait_until_on(1, VOLUME).await;
            let content = fs::read_to_string(cluster.path(1, VOLUME).join("file")).unwrap();
            assert_eq!(content, CONTENT);
            let leases = cluster.client.get("/v1/configuration/leases").await.json();
            assert_eq!(
                leases,
                json!([{"dataset_id": VOLUME, "node_uuid": NODE, "expires": null}])
            );
            let list = cluster.client.get("/v1/configuration/datasets").await.json();
            let found: Vec<_> = list
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| &entry["deleted"])
                .collect();
            assert_eq!(found, [true, false], "in run {run}");
            let taken = json!({"dataset_id": DELETED, "primary": NODE});
            assert_eq!(
                cluster
                    .client
                    .post("/v1/configuration/datasets", &taken)
                    .await
                    .status,
                409
            );
            assert_eq!(fs::read(directory.join("data/state.json.old")).unwrap(), before);
            cluster.flocker.stop().await.unwrap();
            assert!(loop_devices(&directory).is_empty());
        }
    });
}
