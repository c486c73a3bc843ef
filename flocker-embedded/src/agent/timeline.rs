//! When steps happen at the stock timing, on a clock that stands still while any task works.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Node, Shared, Status, publish};
use crate::backend::{Backend, StorageOptions, is_mounted};
use crate::cluster::SeenDataset;
use crate::data_dir::DataDir;
use crate::faults::{FaultPlan, Faults};
use crate::namespace;
use crate::options::{NodeInfo, Timing};
use crate::store::{Dataset, Purpose, Store};

const TICK: Duration = Duration::from_millis(10);
/// Longer than any step takes at the stock timing.
const LONGEST: Duration = Duration::from_secs(60);

/// Nodes at the stock timing whose time passes only while all of them wait.
struct Fixture {
    shared: Arc<Shared>,
    nodes: Vec<NodeInfo>,
    stop: CancellationToken,
    agents: JoinSet<()>,
    services: JoinSet<()>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for node in &self.nodes {
            self.shared.cut_power(node);
        }
    }
}

impl Fixture {
    fn new(directory: &Path) -> Self {
        let data_dir = Arc::new(DataDir::claim(directory).unwrap());
        let store = Arc::new(Store::open(&data_dir, 2).unwrap());
        let nodes: Vec<_> = (1..=2)
            .zip(store.nodes())
            .map(|(number, uuid)| NodeInfo {
                number,
                uuid,
                mount_root: data_dir.mount_root(number),
            })
            .collect();
        let backend = Arc::new(Backend::open(data_dir, StorageOptions::THIN, false).unwrap());
        let faults = Faults::new(FaultPlan::default(), 2);
        let shared = Arc::new(Shared::new(store, backend, faults, BTreeMap::new()));
        let status = Arc::new(Status::new(&shared.store));
        let (stop, mut agents, mut services) = (CancellationToken::new(), JoinSet::new(), JoinSet::new());
        for node in &nodes {
            let (shared, status) = (Arc::clone(&shared), Arc::clone(&status));
            let node = Node::new(node.clone(), Timing::Stock, LONGEST, shared, status);
            agents.spawn(node.run(stop.clone()));
        }
        let (store, cluster) = (Arc::clone(&shared.store), Arc::clone(&shared.cluster));
        services.spawn(publish(status, store, cluster, Timing::Stock));
        Self {
            shared,
            nodes,
            stop,
            agents,
            services,
        }
    }

    /// Asserts that a condition becomes true within these seconds after `begin`.
    async fn assert_happens(
        &self,
        what: &str,
        begin: Instant,
        expected: RangeInclusive<f64>,
        has_happened: impl Fn() -> bool,
    ) {
        while !has_happened() {
            assert!(begin.elapsed() < LONGEST, "{what} has not happened in time");
            sleep(TICK).await;
        }
        let after = begin.elapsed().as_secs_f64();
        println!("{what} after {after:.2} s");
        assert!(
            expected.contains(&after),
            "{what} after {after} s, not {expected:?}"
        );
    }

    fn seen(&self, dataset: Uuid) -> Option<SeenDataset> {
        let datasets = self.shared.cluster.datasets();
        datasets.into_iter().find(|seen| seen.id == dataset)
    }

    fn is_mounted(&self, number: usize, dataset: Uuid) -> bool {
        is_mounted(&self.nodes[number - 1].mount_path(dataset)).unwrap()
    }

    fn is_reported(&self, number: usize, dataset: Uuid) -> bool {
        let mounted = self.seen(dataset).and_then(|seen| seen.mounted);
        mounted.is_some_and(|(node, _)| node == self.nodes[number - 1].uuid)
    }

    /// Changes the configured dataset, and returns the time of the change.
    fn configure(&self, dataset: Uuid, change: impl FnOnce(&mut Dataset)) -> Instant {
        let new = Dataset {
            primary: self.nodes[0].uuid,
            deleted: false,
            maximum_size: Some(crate::store::Size::Bytes(64 << 20)),
            metadata: BTreeMap::new(),
        };
        let configured = self.shared.store.update(Purpose::Growth, |transaction| {
            let found = transaction.dataset(dataset)?;
            let mut configured = found.map_or(new, |found| Dataset::clone(&found));
            change(&mut configured);
            transaction.put_dataset(dataset, configured).map(Ok::<_, ()>)
        });
        configured.unwrap().unwrap();
        Instant::now()
    }
}

/// Runs a test in a thread of its own, with mounts and a clock of its own.
fn in_virtual_time<F: Future<Output = ()>>(test: impl FnOnce(Fixture) -> F + Send + 'static) {
    let run = move || {
        namespace::enter_own_namespace();
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async { test(Fixture::new(directory.path())).await });
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// The times were measured on a real cluster: when state showed each change, and when the mounts existed.
#[test]
fn at_the_stock_timing_every_change_takes_as_long_as_on_a_real_cluster() {
    in_virtual_time(async |mut fixture| {
        let dataset = Uuid::new_v4();
        // Long after the agents have connected.
        sleep(Duration::from_secs(5)).await;
        let begin = fixture.configure(dataset, |_| {});
        fixture
            .assert_happens("a create is in state", begin, 2.6..=4.2, || {
                fixture.seen(dataset).is_some()
            })
            .await;
        fixture
            .assert_happens("a create is mounted", begin, 5.5..=6.8, || {
                fixture.is_mounted(1, dataset)
            })
            .await;
        assert!(!fixture.is_reported(1, dataset));
        fixture
            .assert_happens("a create is reported", begin, 15.7..=18.3, || {
                fixture.is_reported(1, dataset)
            })
            .await;

        sleep(Duration::from_secs(20)).await;
        let begin = fixture.configure(dataset, |configured| configured.primary = fixture.nodes[1].uuid);
        fixture
            .assert_happens("a move is in progress", begin, 0.5..=4.0, || {
                !fixture.is_reported(1, dataset)
            })
            .await;
        fixture
            .assert_happens("a move is mounted", begin, 4.1..=5.2, || {
                fixture.is_mounted(2, dataset)
            })
            .await;
        fixture
            .assert_happens("a move is reported", begin, 5.9..=7.2, || {
                fixture.is_reported(2, dataset)
            })
            .await;

        sleep(Duration::from_secs(20)).await;
        let begin = fixture.configure(dataset, |configured| configured.deleted = true);
        fixture
            .assert_happens("a delete is done", begin, 2.9..=4.3, || {
                fixture.seen(dataset).is_none()
            })
            .await;

        fixture.stop.cancel();
        while fixture.agents.join_next().await.is_some() {}
        fixture.services.shutdown().await;
    });
}

/// On a real cluster such a dataset was mounted 8.4 and 9.2 s after the move: the agent that has just attached it learns of
/// the move only after its back-off, as what it saw last was a detached dataset, and the other agent looks every 3 s.
#[test]
fn a_move_between_attaching_and_formatting_takes_as_long_as_on_a_real_cluster() {
    in_virtual_time(async |mut fixture| {
        let dataset = Uuid::new_v4();
        sleep(Duration::from_secs(5)).await;
        let begin = fixture.configure(dataset, |_| {});
        let attached_to = |number: usize| {
            let attachments = fixture.shared.store.attachments();
            attachments.get(&dataset) == Some(&fixture.nodes[number - 1].uuid)
        };
        fixture
            .assert_happens("a create is attached", begin, 2.6..=4.2, || attached_to(1))
            .await;
        let begin = fixture.configure(dataset, |configured| configured.primary = fixture.nodes[1].uuid);
        fixture
            .assert_happens("the move is mounted", begin, 8.4..=9.3, || {
                assert!(!fixture.is_mounted(1, dataset));
                fixture.is_mounted(2, dataset)
            })
            .await;

        fixture.stop.cancel();
        while fixture.agents.join_next().await.is_some() {}
        fixture.services.shutdown().await;
    });
}
