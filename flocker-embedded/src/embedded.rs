//! Starting and stopping it all.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::agent::{self, Node, Shared, Status};
use crate::api::Api;
use crate::backend::Backend;
use crate::counters::{Counters, Counting};
use crate::data_dir::DataDir;
use crate::faults::Faults;
use crate::pki::{Authority, Pki};
use crate::server::{self, Port, Server};
use crate::store::Store;
use crate::tls::Acceptor;
use crate::{Error, NodeInfo, Options, Timing};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How long requests under way may take when it is stopped.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
/// How long openers of loop devices, such as those that probe them, are waited for then.
const LAST_OPENERS: Duration = Duration::from_secs(2);
const OPENER_POLL: Duration = Duration::from_millis(20);
/// How long a predecessor that is just ending may keep the data directory.
const HANDOVER: Duration = Duration::from_secs(2);
const HANDOVER_POLL: Duration = Duration::from_millis(20);
/// How long the agents may take to look around before the start counts as done.
const FIRST_REPORTS: Duration = Duration::from_secs(10);

/// A running Flocker: its REST API and the agents of its nodes.
///
/// Dropping it is what a crash is: tasks end where they are, loop devices and mounts stay. Use
/// [`Embedded::stop`] to end it in good order. Either way the next start on the same data directory goes on
/// from there.
pub struct Embedded {
    nodes: Vec<NodeInfo>,
    certificates: PathBuf,
    authority: Authority,
    shared: Arc<Shared>,
    stop: CancellationToken,
    server: Arc<Server>,
    agents: JoinSet<()>,
    /// Whatever runs for ever.
    services: JoinSet<()>,
}

impl Embedded {
    /// Starts it and returns when the API answers and the agents have begun to converge what is configured.
    ///
    /// Mounts are made in the mount namespace of the runtime's threads.
    pub async fn start(options: Options) -> Result<Self, Error> {
        options.check()?;
        spawn_blocking(Backend::check_system).await??;
        let data_dir = claim(&options.data_dir).await?;
        let parts = spawn_blocking(move || Parts::prepare(data_dir, options)).await??;
        let Parts {
            options,
            nodes,
            authority,
            shared,
            server,
        } = parts;
        server.start()?;
        let server = Arc::new(server);
        let mut services = JoinSet::new();
        services.spawn(server::follow_plan(
            Arc::clone(&server),
            Arc::clone(&shared.cluster),
        ));

        let mut embedded = Self {
            nodes,
            certificates: options.certificates,
            authority,
            shared,
            stop: CancellationToken::new(),
            server,
            agents: JoinSet::new(),
            services,
        };
        let expiry = options
            .node_expiry
            .unwrap_or_else(|| options.timing.node_expiry());
        embedded.start_agents(options.timing, expiry);
        if options.timing == Timing::Instant
            && timeout(FIRST_REPORTS, embedded.wait_for_reports()).await.is_err()
        {
            tracing::warn!("Not every node has reported within {FIRST_REPORTS:?}; starting all the same");
        }
        tracing::info!(
            "Flocker serves {} node(s) at https://{}",
            embedded.nodes.len(),
            embedded.address()
        );
        Ok(embedded)
    }

    fn start_agents(&mut self, timing: Timing, expiry: Duration) {
        let (store, cluster) = (&self.shared.store, &self.shared.cluster);
        let status = Arc::new(Status::new(store));
        for node in &self.nodes {
            let (shared, status) = (Arc::clone(&self.shared), Arc::clone(&status));
            let node = Node::new(node.clone(), timing, expiry, shared, status);
            self.agents.spawn(node.run(self.stop.clone()));
        }
        self.services.spawn(agent::sweep_leases(Arc::clone(store)));
        if timing == Timing::Instant {
            self.services.spawn(agent::watch_mounts(Arc::clone(&status)));
        }
        self.services.spawn(agent::publish(
            status,
            Arc::clone(store),
            Arc::clone(cluster),
            timing,
        ));
    }

    /// Waits until every agent that runs has looked at what is there.
    async fn wait_for_reports(&self) {
        let mut news = self.shared.cluster.subscribe();
        let is_expected = |node: &&NodeInfo| self.faults().read(|plan| plan.node(node.number)).agent_runs();
        while !self
            .nodes
            .iter()
            .filter(is_expected)
            .all(|node| self.shared.cluster.has_reported(node.uuid))
        {
            if news.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns the address the API listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns the nodes, in the order of their numbers.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// Returns the directory with `cluster.crt`, `plugin.crt`, `plugin.key` and one `node-N.id` per node.
    pub fn certificates(&self) -> &Path {
        &self.certificates
    }

    /// Returns the certificate authority of the cluster, which can issue certificates for more clients.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns the bytes that all volumes together may have.
    pub fn capacity(&self) -> u64 {
        self.shared.backend.volumes().capacity()
    }

    /// Returns the bytes that new datasets may still have: the capacity, less the sizes of all volumes that
    /// exist and of all that are configured.
    pub fn free_capacity(&self) -> u64 {
        let volumes = self.shared.backend.volumes();
        let mut sizes = volumes.sizes();
        let snapshot = self.shared.store.snapshot();
        let live = snapshot
            .configuration
            .datasets
            .iter()
            .filter(|(_, dataset)| !dataset.deleted);
        for (id, dataset) in live {
            sizes.entry(*id).or_insert(dataset.size());
        }
        sizes
            .values()
            .fold(volumes.capacity(), |free, size| free.saturating_sub(*size))
    }

    /// Returns what has been asked of the API so far.
    pub fn counters(&self) -> Counters {
        self.server.counting.snapshot()
    }

    /// Returns the switches for what goes wrong on purpose.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Returns the eras (boot ids) that a node can be found by, by its number: those it has been given at the start,
    /// or the one it has got when its machine started last.
    pub fn eras(&self, number: usize) -> Vec<Uuid> {
        let node = self.nodes.iter().find(|node| node.number == number);
        node.map(|node| self.shared.eras(node.uuid)).unwrap_or_default()
    }

    /// Ends it in good order: what is published stays mounted, everything else is unmounted and detached.
    ///
    /// Published is what is mounted anywhere else too, or in use. Returns when the agents' last steps are
    /// done; making a file system can take seconds.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop.cancel();
        self.server.finish(LAST_REQUESTS);
        while let Some(ended) = self.agents.join_next().await {
            ended?;
        }
        let (shared, nodes) = (Arc::clone(&self.shared), std::mem::take(&mut self.nodes));
        let release = move || nodes.iter().flat_map(|node| shared.release(node)).collect();
        let mut lingering: Vec<Uuid> = spawn_blocking(release).await?;
        let deadline = Instant::now() + LAST_OPENERS;
        while !lingering.is_empty() && Instant::now() < deadline {
            sleep(OPENER_POLL).await;
            let shared = Arc::clone(&self.shared);
            lingering = spawn_blocking(move || shared.still_lingering(lingering)).await?;
        }
        for dataset in lingering {
            tracing::info!(dataset.id = %dataset, "Dataset {dataset} is detached when its last opener goes");
        }
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.server.close();
    }
}

/// What has to be there before anything can run.
struct Parts {
    options: Options,
    nodes: Vec<NodeInfo>,
    authority: Authority,
    shared: Arc<Shared>,
    server: Server,
}

impl Parts {
    /// Blocks.
    fn prepare(data_dir: Arc<DataDir>, options: Options) -> Result<Self, Error> {
        let port = Port::reserve(options.listen)?;
        let store = Arc::new(Store::open(Arc::clone(&data_dir), options.nodes)?);
        let nodes: Vec<_> = (1..=options.nodes)
            .zip(store.nodes())
            .map(|(number, uuid)| NodeInfo {
                number,
                uuid,
                mount_root: data_dir.mount_root(number),
            })
            .collect();
        let keys = data_dir.pki(options.certificate_profile);
        let pki = Pki::open(
            &keys,
            store.cluster(),
            options.certificate_profile,
            options.listen.ip(),
        )?;
        pki.write_client_files(&options.certificates, &nodes)?;
        let counting = Arc::new(Counting::default());
        let acceptor = Acceptor::new(&pki, Arc::clone(&counting)).map_err(|source| Error::Certificate {
            action: "use the certificate of the control service".to_owned(),
            source,
        })?;
        let backend = Arc::new(Backend::open(data_dir, options.capacity)?);
        let faults = Faults::new(options.faults.clone(), options.nodes);
        let eras = eras(&options.eras, &nodes);
        let shared = Arc::new(Shared::new(store, backend, faults.clone(), eras));
        shared.adopt(&nodes);
        let api = Api {
            store: Arc::clone(&shared.store),
            cluster: Arc::clone(&shared.cluster),
            nodes: nodes.clone(),
            faults,
            writing: Mutex::new(()),
        };
        let server = Server {
            port,
            acceptor,
            api: Arc::new(api),
            counting,
            running: std::sync::Mutex::default(),
        };
        Ok(Self {
            options,
            nodes,
            authority: pki.authority,
            shared,
            server,
        })
    }
}

/// Claims the data directory, with some patience for a predecessor that is just ending.
async fn claim(path: &Path) -> Result<Arc<DataDir>, Error> {
    let deadline = Instant::now() + HANDOVER;
    loop {
        let path = path.to_owned();
        match spawn_blocking(move || DataDir::claim(&path)).await? {
            Err(Error::DataDirInUse { .. }) if Instant::now() < deadline => sleep(HANDOVER_POLL).await,
            outcome => return outcome.map(Arc::new),
        }
    }
}

/// Returns the eras of each node. The boot id of this machine can stand for one node only.
fn eras(given: &BTreeMap<usize, Uuid>, nodes: &[NodeInfo]) -> BTreeMap<Uuid, Vec<Uuid>> {
    let mut eras: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for node in nodes {
        eras.insert(node.uuid, given.get(&node.number).copied().into_iter().collect());
    }
    if let [node] = nodes {
        let boot_id = fs::read_to_string(BOOT_ID)
            .ok()
            .and_then(|text| Uuid::parse_str(text.trim()).ok());
        if boot_id.is_none() {
            tracing::warn!("Cannot read {BOOT_ID}; this machine's node is not found by its era");
        }
        eras.entry(node.uuid).or_default().extend(boot_id);
    }
    eras
}
