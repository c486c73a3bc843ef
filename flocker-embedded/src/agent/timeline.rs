//! When things happen at the stock timing, on a clock that stands still while anybody works.

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
use crate::backend::{Backend, is_mounted};
use crate::cluster::SeenDataset;
use crate::data_dir::DataDir;
use crate::faults::{FaultPlan, Faults};
use crate::namespace;
use crate::options::{NodeInfo, Timing};
use crate::store::{Dataset, Store};

const TICK: Duration = Duration::from_millis(10);
/// Nothing takes this long at the stock timing.
const LONGEST: Duration = Duration::from_secs(60);

/// Nodes at the stock pace whose time passes only while all of them wait.
struct Site {
    shared: Arc<Shared>,
    nodes: Vec<NodeInfo>,
    stop: CancellationToken,
    agents: JoinSet<()>,
    services: JoinSet<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        for node in &self.nodes {
            self.shared.cut_power(node);
        }
    }
}

impl Site {
    fn new(directory: &Path) -> Self {
        let data_dir = Arc::new(DataDir::claim(directory).unwrap());
        let store = Arc::new(Store::open(Arc::clone(&data_dir), 2).unwrap());
        let nodes: Vec<_> = (1..=2)
            .zip(store.nodes())
            .map(|(number, uuid)| NodeInfo {
                number,
                uuid,
                mount_root: data_dir.mount_root(number),
            })
            .collect();
        let backend = Arc::new(Backend::open(data_dir, None).unwrap());
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

    /// Asserts that something happens within so many seconds from `begin`.
    async fn happens(
        &self,
        what: &str,
        begin: Instant,
        expected: RangeInclusive<f64>,
        has_happened: impl Fn() -> bool,
    ) {
        while !has_happened() {
            assert!(begin.elapsed() < LONGEST, "{what} never happens");
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

    /// Changes the configured dataset, and returns when that was.
    fn configure(&self, dataset: Uuid, change: impl FnOnce(&mut Dataset)) -> Instant {
        let new = Dataset {
            primary: self.nodes[0].uuid,
            deleted: false,
            maximum_size: Some(64 << 20),
            metadata: BTreeMap::new(),
        };
        self.shared
            .store
            .change(|state| change(state.configuration.datasets.entry(dataset).or_insert(new)))
            .unwrap();
        Instant::now()
    }
}

/// Runs a test in a thread of its own, with mounts and a clock of its own.
fn in_virtual_time<F: Future<Output = ()>>(test: impl FnOnce(Site) -> F + Send + 'static) {
    let run = move || {
        namespace::enter_own_namespace();
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async { test(Site::new(directory.path())).await });
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// The times are those of a real cluster: `flocker-measured-behaviour.md`, section 6, and when its mounts were there.
#[test]
fn at_the_stock_pace_everything_takes_as_long_as_on_a_real_cluster() {
    in_virtual_time(async |mut site| {
        let dataset = Uuid::new_v4();
        // Long after the agents have connected.
        sleep(Duration::from_secs(5)).await;
        let begin = site.configure(dataset, |_| {});
        site.happens("a create is in state", begin, 2.6..=4.2, || {
            site.seen(dataset).is_some()
        })
        .await;
        site.happens("a create is mounted", begin, 5.5..=6.8, || {
            site.is_mounted(1, dataset)
        })
        .await;
        assert!(!site.is_reported(1, dataset));
        site.happens("a create is reported", begin, 15.7..=18.3, || {
            site.is_reported(1, dataset)
        })
        .await;

        sleep(Duration::from_secs(20)).await;
        let begin = site.configure(dataset, |configured| configured.primary = site.nodes[1].uuid);
        site.happens("a move is under way", begin, 0.5..=4.0, || {
            !site.is_reported(1, dataset)
        })
        .await;
        site.happens("a move is mounted", begin, 4.1..=5.2, || {
            site.is_mounted(2, dataset)
        })
        .await;
        site.happens("a move is reported", begin, 5.9..=7.2, || {
            site.is_reported(2, dataset)
        })
        .await;

        sleep(Duration::from_secs(20)).await;
        let begin = site.configure(dataset, |configured| configured.deleted = true);
        site.happens("a delete is done", begin, 2.9..=4.3, || {
            site.seen(dataset).is_none()
        })
        .await;

        site.stop.cancel();
        while site.agents.join_next().await.is_some() {}
        site.services.shutdown().await;
    });
}
