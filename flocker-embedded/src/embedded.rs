//! Starting and stopping: the parts of an embedded Flocker in their order.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host_fs::durable::make_directory;
use supervised_tasks::Supervisor;
use tokio::sync::Mutex;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::agent::{self, Node, Shared, Status};
use crate::api::{AnswerTime, Api};
use crate::backend::{Backend, StorageOptions};
use crate::counters::{Counters, Counting};
use crate::data_dir::DataDir;
use crate::faults::Faults;
use crate::pki::{Authority, Pki};
use crate::server::{self, Port, Server};
use crate::storage_status::StorageStatus;
use crate::store::Store;
use crate::tls::Acceptor;
use crate::{Error, NodeInfo, Options, Timing};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How long requests in progress may take after a stop.
const STOP_REQUESTS: Duration = Duration::from_secs(2);
/// How long a stop waits for processes that have a loop device open, such as those that probe it.
const STOP_OPENERS: Duration = Duration::from_secs(2);
const OPENER_POLL: Duration = Duration::from_millis(20);
/// How long a start waits for a process that is about to release the data directory.
const HANDOVER: Duration = Duration::from_secs(2);
const HANDOVER_POLL: Duration = Duration::from_millis(20);
/// How long a start waits for the first reports of all agents.
const FIRST_REPORTS: Duration = Duration::from_secs(10);

/// A running Flocker: its REST API and the agents of its nodes.
///
/// Dropping it has the effect of a crash: tasks end where they are, loop devices and mounts stay. [`Embedded::stop`]
/// ends it gracefully. In both cases the next start on the same data directory continues from there.
pub struct Embedded {
    nodes: Vec<NodeInfo>,
    certificates: PathBuf,
    authority: Authority,
    shared: Arc<Shared>,
    status: Arc<Status>,
    stop: CancellationToken,
    server: Arc<Server>,
    agents: JoinSet<()>,
    /// The tasks that run until they are aborted.
    services: JoinSet<()>,
}

impl Embedded {
    /// Starts it, and returns when the API answers and the agents have begun to converge what is configured.
    ///
    /// Mounts are created in the mount namespace of the runtime's threads.
    pub async fn start(options: Options) -> Result<Self, Error> {
        options.check()?;
        spawn_blocking(Backend::check_system).await??;
        let data_dir = claim_data_dir(&options.data_dir).await?;
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
        let mut embedded = Self {
            nodes,
            certificates: options.certificates,
            authority,
            status: Arc::new(Status::new(&shared.store)),
            shared,
            stop: CancellationToken::new(),
            server,
            agents: JoinSet::new(),
            services: JoinSet::new(),
        };
        let expiry = options
            .node_expiry
            .unwrap_or_else(|| options.timing.node_expiry());
        embedded.start_agents(options.timing, expiry);
        embedded.start_services(options.timing, options.deleted_listed_for);
        if options.timing == Timing::Instant
            && timeout(FIRST_REPORTS, embedded.wait_for_reports()).await.is_err()
        {
            tracing::warn!(
                "Not every node has reported within {FIRST_REPORTS:?}; the start continues without"
            );
        }
        tracing::info!(
            "Flocker serves {} node(s) at https://{}",
            embedded.nodes.len(),
            embedded.address()
        );
        Ok(embedded)
    }

    fn start_agents(&mut self, timing: Timing, expiry: Duration) {
        let shared = &self.shared;
        // The agents follow the token themselves, and finish the steps they have begun.
        let tasks = Supervisor::new(self.stop.clone(), || {});
        for node in &self.nodes {
            let (node, shared, status, stop) = (
                node.clone(),
                Arc::clone(shared),
                Arc::clone(&self.status),
                self.stop.clone(),
            );
            let run = move || {
                let node = Node::new(
                    node.clone(),
                    timing,
                    expiry,
                    Arc::clone(&shared),
                    Arc::clone(&status),
                );
                node.run(stop.clone())
            };
            self.agents
                .spawn(tasks.clone().supervise("the agent of a node", run));
        }
    }

    /// Starts the tasks that run until they are aborted.
    fn start_services(&mut self, timing: Timing, deleted_listed_for: Duration) {
        let (shared, status, services) = (&self.shared, &self.status, &mut self.services);
        let tasks = Supervisor::new(self.stop.clone(), || {});
        let (server, cluster) = (Arc::clone(&self.server), Arc::clone(&shared.cluster));
        let plan = move || server::follow_plan(Arc::clone(&server), Arc::clone(&cluster));
        services.spawn(tasks.clone().supervise("following the plan of faults", plan));
        let store = Arc::clone(&shared.store);
        let sweep = move || agent::sweep_leases(Arc::clone(&store));
        services.spawn(tasks.clone().supervise("removing leases that have ended", sweep));
        let (store, backend) = (Arc::clone(&shared.store), Arc::clone(&shared.backend));
        let unlist =
            move || agent::unlist_deleted(Arc::clone(&store), Arc::clone(&backend), deleted_listed_for);
        services.spawn(
            tasks
                .clone()
                .supervise("removing deleted datasets from the list", unlist),
        );
        if timing == Timing::Instant {
            let status = Arc::clone(status);
            let watch = move || agent::watch_mounts(Arc::clone(&status));
            services.spawn(tasks.clone().supervise("watching the mount table", watch));
        }
        let (status, store, cluster) = (
            Arc::clone(status),
            Arc::clone(&shared.store),
            Arc::clone(&shared.cluster),
        );
        let publish = move || {
            agent::publish(
                Arc::clone(&status),
                Arc::clone(&store),
                Arc::clone(&cluster),
                timing,
            )
        };
        services.spawn(tasks.supervise("publishing the configuration", publish));
    }

    /// Waits until every running agent has reported.
    async fn wait_for_reports(&self) {
        let mut changes = self.shared.cluster.subscribe();
        let is_expected = |node: &&NodeInfo| self.faults().read(|plan| plan.node(node.number)).agent_runs();
        while !self
            .nodes
            .iter()
            .filter(is_expected)
            .all(|node| self.shared.cluster.has_reported(node.uuid))
        {
            if changes.changed().await.is_err() {
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

    /// Returns the total capacity of all volumes, in bytes.
    pub fn capacity(&self) -> u64 {
        self.shared.backend.volumes().capacity()
    }

    /// Returns the bytes that new datasets may still take: the capacity, less the sizes of all volumes that exist and
    /// of all that are configured.
    pub fn free_capacity(&self) -> u64 {
        let sizes = self.shared.sizes();
        sizes
            .values()
            .fold(self.capacity(), |free, size| free.saturating_sub(*size))
    }

    /// Returns a function that reads what is stored, for metrics. It blocks, and returns `None` once this Flocker has
    /// ended.
    pub fn storage_status(
        &self,
    ) -> impl Fn() -> Option<Result<StorageStatus, Error>> + Clone + Send + Sync + 'static {
        // The next process on this machine waits for what `Shared` has locked.
        let shared = Arc::downgrade(&self.shared);
        move || Some(StorageStatus::of(&*shared.upgrade()?))
    }

    /// Returns the counts of requests and connections since the start.
    pub fn counters(&self) -> Counters {
        self.server.counting.snapshot()
    }

    /// Returns the handle that injects faults.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Returns the eras (boot ids) of a node, by its number: those of the settings, or the one that its machine has
    /// had since its last start.
    pub fn eras(&self, number: usize) -> Vec<Uuid> {
        let node = self.nodes.iter().find(|node| node.number == number);
        node.map(|node| self.shared.eras(node.uuid)).unwrap_or_default()
    }

    /// Stops it gracefully: published datasets stay mounted, all others are unmounted and detached.
    ///
    /// Published is what is mounted anywhere else too, or in use. Returns when the agents' last steps are
    /// done; creating a file system can take seconds.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop.cancel();
        self.server.finish(STOP_REQUESTS);
        while let Some(ended) = self.agents.join_next().await {
            ended?;
        }
        let (shared, nodes) = (Arc::clone(&self.shared), std::mem::take(&mut self.nodes));
        let release = move || nodes.iter().flat_map(|node| shared.release(node)).collect();
        let mut lingering: Vec<Uuid> = spawn_blocking(release).await?;
        let deadline = Instant::now() + STOP_OPENERS;
        while !lingering.is_empty() && Instant::now() < deadline {
            sleep(OPENER_POLL).await;
            let shared = Arc::clone(&self.shared);
            lingering = spawn_blocking(move || shared.still_lingering(lingering)).await?;
        }
        for dataset in lingering {
            tracing::info!(
                dataset.id = %dataset,
                "Dataset {dataset} will be detached when the last process has closed its loop device"
            );
        }
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.server.close();
    }
}

/// What is needed before anything can run.
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
        let store = Arc::new(Store::open(&data_dir, options.nodes)?);
        let nodes: Vec<_> = (1..=options.nodes)
            .zip(store.nodes())
            .map(|(number, uuid)| NodeInfo {
                number,
                uuid,
                mount_root: data_dir.mount_root(number),
            })
            .collect();
        // Plugins are not ready without it, also before the first volume is mounted.
        for NodeInfo { mount_root, .. } in &nodes {
            make_directory(mount_root).map_err(Error::file("create", mount_root))?;
        }
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
        let storage = StorageOptions {
            capacity: options.capacity,
            allocation: options.allocation,
            io: options.io,
        };
        let backend = Arc::new(Backend::open(data_dir, storage, options.double_attach)?);
        let faults = Faults::new(options.faults.clone(), options.nodes);
        let eras = eras(&options.eras, &nodes);
        let shared = Arc::new(Shared::new(store, backend, faults.clone(), eras));
        shared.adopt(&nodes);
        shared.report_unknown_volumes();
        let api = Api {
            store: Arc::clone(&shared.store),
            cluster: Arc::clone(&shared.cluster),
            nodes: nodes.clone(),
            faults,
            answer_time: AnswerTime::new(options.timing),
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

/// Locks the data directory, and waits a moment for a process that is about to release it.
async fn claim_data_dir(path: &Path) -> Result<Arc<DataDir>, Error> {
    let deadline = Instant::now() + HANDOVER;
    loop {
        let path = path.to_owned();
        match spawn_blocking(move || DataDir::claim(&path)).await? {
            Err(Error::DataDirInUse { .. }) if Instant::now() < deadline => sleep(HANDOVER_POLL).await,
            outcome => return outcome.map(Arc::new),
        }
    }
}

/// Returns the eras of each node. The boot id of this machine can identify one node only.
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
            tracing::warn!("Cannot read {BOOT_ID}; the node of this machine cannot be found by its era");
        }
        eras.entry(node.uuid).or_default().extend(boot_id);
    }
    eras
}
