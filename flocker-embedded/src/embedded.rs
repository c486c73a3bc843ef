//! Starting and stopping it all.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::response::Response;
use axum_server::Handle;
use hyper::body::Incoming;
use tokio::sync::Mutex;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, make};
use uuid::Uuid;

use crate::agent::{self, Agent, Board, Shared};
use crate::api::{self, Api};
use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::counters::{Counters, Counting};
use crate::data_dir::DataDir;
use crate::faults::{Faults, Lost};
use crate::pki::{Authority, Pki};
use crate::store::Store;
use crate::tls::Acceptor;
use crate::{Error, NodeInfo, Options, Pace};

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
    address: SocketAddr,
    nodes: Vec<NodeInfo>,
    certificates: PathBuf,
    authority: Authority,
    counting: Arc<Counting>,
    faults: Faults,
    shared: Arc<Shared>,
    stop: CancellationToken,
    server: Handle<SocketAddr>,
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
            listener,
            nodes,
            authority,
            shared,
            acceptor,
            counting,
        } = parts;
        let address = listener.local_addr().map_err(|source| Error::Listen {
            address: options.listen,
            source,
        })?;

        let api = Api {
            store: Arc::clone(&shared.store),
            cluster: Arc::clone(&shared.cluster),
            nodes: nodes.clone(),
            eras: eras(&options.eras, &nodes),
            writing: Mutex::new(()),
        };
        let faults = Faults::new(options.faults.clone());
        let stop = CancellationToken::new();
        let router = api::router(api, Arc::clone(&counting), faults.clone(), stop.clone());
        // The server closes the connection of a service that fails.
        let service = router
            .into_service::<Incoming>()
            .map_err(|never| match never {})
            .map_result(|answer: Result<Response, io::Error>| {
                answer.and_then(|response| match response.extensions().get::<Lost>() {
                    None => Ok(response),
                    Some(Lost) => Err(io::ErrorKind::ConnectionAborted.into()),
                })
            });
        let handle = Handle::new();
        let mut server = axum_server::from_tcp(listener)
            .map_err(|source| Error::Listen { address, source })?
            .acceptor(acceptor)
            .http1_only()
            .handle(handle.clone());
        // Names are spelled as the control service spells them, for clients that take the spelling seriously.
        server.http_builder().http1().title_case_headers(true);
        let mut services = JoinSet::new();
        services.spawn(async move {
            if let Err(error) = server.serve(make::Shared::new(service)).await {
                tracing::error!(%error, "The REST API has broken down");
            }
        });

        let mut embedded = Self {
            address,
            nodes,
            certificates: options.certificates,
            authority,
            counting,
            faults,
            shared,
            stop,
            server: handle,
            agents: JoinSet::new(),
            services,
        };
        embedded.start_agents(options.pace);
        if options.pace == Pace::Instant && timeout(FIRST_REPORTS, embedded.wait_for_reports()).await.is_err()
        {
            tracing::warn!("Not every node has reported within {FIRST_REPORTS:?}; starting all the same");
        }
        tracing::info!(
            "Flocker serves {} node(s) at https://{address}",
            embedded.nodes.len()
        );
        Ok(embedded)
    }

    fn start_agents(&mut self, pace: Pace) {
        let (store, cluster) = (&self.shared.store, &self.shared.cluster);
        let board = Arc::new(Board::new(store));
        for node in &self.nodes {
            let agent = Agent::new(node.clone(), pace, Arc::clone(&self.shared), &board);
            self.agents.spawn(agent.run(self.stop.clone()));
        }
        self.services.spawn(agent::sweep_leases(Arc::clone(store)));
        if pace == Pace::Instant {
            self.services.spawn(agent::watch_mounts(Arc::clone(&board)));
        }
        self.services.spawn(agent::publish(
            board,
            Arc::clone(store),
            Arc::clone(cluster),
            pace,
        ));
    }

    /// Waits until every agent has looked at what is there.
    async fn wait_for_reports(&self) {
        let mut news = self.shared.cluster.subscribe();
        while !self
            .nodes
            .iter()
            .all(|node| self.shared.cluster.has_reported(node.uuid))
        {
            if news.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns the address the API listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
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
        self.counting.snapshot()
    }

    /// Returns the switches for what goes wrong on purpose.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Ends it in good order: what is published stays mounted, everything else is unmounted and detached.
    ///
    /// Published is what is mounted anywhere else too, or in use. Returns when the agents' last steps are
    /// done; making a file system can take seconds.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop.cancel();
        self.server.graceful_shutdown(Some(LAST_REQUESTS));
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
        self.stop.cancel();
        // Tasks of the server that are not ours would keep serving their connections.
        self.server.shutdown();
    }
}

/// What has to be there before anything can run.
struct Parts {
    options: Options,
    listener: TcpListener,
    nodes: Vec<NodeInfo>,
    authority: Authority,
    shared: Arc<Shared>,
    acceptor: Acceptor,
    counting: Arc<Counting>,
}

impl Parts {
    /// Blocks.
    fn prepare(data_dir: Arc<DataDir>, options: Options) -> Result<Self, Error> {
        let listener = listen(options.listen)?;
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
        let shared = Arc::new(Shared::new(store, backend, Arc::new(Cluster::default())));
        shared.adopt(&nodes);
        Ok(Self {
            options,
            listener,
            nodes,
            authority: pki.authority,
            shared,
            acceptor,
            counting,
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

fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse { address },
        _ => Error::Listen { address, source },
    })
}

/// Returns the node of each era. The boot id of this machine can stand for one node only.
fn eras(given: &BTreeMap<usize, Uuid>, nodes: &[NodeInfo]) -> BTreeMap<Uuid, Uuid> {
    let numbered = nodes
        .iter()
        .filter_map(|node| Some((*given.get(&node.number)?, node.uuid)));
    let mut eras: BTreeMap<_, _> = numbered.collect();
    if let [node] = nodes {
        let boot_id = fs::read_to_string(BOOT_ID)
            .ok()
            .and_then(|text| Uuid::parse_str(text.trim()).ok());
        if boot_id.is_none() {
            tracing::warn!("Cannot read {BOOT_ID}; this machine's node is not found by its era");
        }
        eras.extend(boot_id.map(|boot_id| (boot_id, node.uuid)));
    }
    eras
}
