//! What is stored, as it is read for metrics.

use std::fs;

use flocker_embedded::{AgentStep, DatasetState, Options, StorageStatus};

use crate::support::{Cluster, SIZE, eventually, isolated, options};

fn status(cluster: &Cluster) -> StorageStatus {
    cluster.flocker.storage_status()().unwrap().unwrap()
}

#[test]
fn the_status_shows_space_states_loop_devices_and_failed_steps() {
    isolated(async |directory| {
        let cluster = Cluster::start_with(Options {
            capacity: Some(SIZE + SIZE / 2),
            ..options(&directory)
        })
        .await;
        let empty = status(&cluster);
        assert_eq!(
            (empty.pools[0].capacity, empty.pools[0].allocated),
            (SIZE + SIZE / 2, 0)
        );
        assert_eq!((empty.pools[0].used, empty.loop_devices), (0, 0));
        assert!(empty.pools[0].free > 0);
        assert_eq!(empty.datasets.len(), DatasetState::ALL.len());
        assert_eq!(empty.failed_steps.len(), AgentStep::ALL.len());
        assert!(empty.failed_steps.values().all(|times| *times == 0), "{empty:?}");

        let dataset = cluster.create_mounted(1).await;
        let mounted = status(&cluster);
        assert_eq!((mounted.pools[0].allocated, mounted.loop_devices), (SIZE, 1));
        assert_eq!(mounted.pools[0].used, SIZE, "{mounted:?}");
        assert_eq!(mounted.datasets[&DatasetState::Mounted], 1);

        // There is no room for it.
        let waiting = cluster.create(1, SIZE).await;
        eventually("the failed step is counted", async || {
            status(&cluster).failed_steps[&AgentStep::Create] > 0
        })
        .await;
        let full = status(&cluster);
        assert_eq!(full.pools[0].allocated, 2 * SIZE);
        assert_eq!(full.datasets[&DatasetState::Creating], 1);
        cluster.delete(waiting).await;
        cluster.delete(dataset).await;
        eventually("both are destroyed", async || {
            let status = status(&cluster);
            status.datasets[&DatasetState::Deleted] == 2 && status.loop_devices == 0
        })
        .await;
        assert_eq!(status(&cluster).pools[0].used, 0);
    });
}

#[test]
fn a_missing_volume_shows_as_unavailable() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let dataset = cluster.create_mounted(1).await;
        cluster.flocker.stop().await.unwrap();
        fs::remove_file(directory.join("data/volumes").join(dataset.to_string())).unwrap();
        let cluster = Cluster::start(&directory, 1).await;
        eventually("it is unavailable", async || {
            let status = status(&cluster);
            status.datasets[&DatasetState::Unavailable] == 1 && status.failed_steps[&AgentStep::Examine] > 0
        })
        .await;
        let read = cluster.flocker.storage_status();
        cluster.flocker.stop().await.unwrap();
        assert!(read().is_none(), "it keeps nothing of what has ended");
    });
}
