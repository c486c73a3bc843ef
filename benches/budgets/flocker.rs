//! An embedded Flocker in this process, so that its requests can be counted.

use std::path::Path;

use flocker_client::{Client, ClientSettings, Credentials};
use flocker_embedded::{Allocation, Counters, Embedded, NodeInfo, Options};
use tokio::time::{Duration, Instant, sleep};

use crate::Result;

/// The size of every volume: the smallest that Flocker accepts.
pub(crate) const VOLUME_SIZE: u64 = 64 << 20;
/// The routes of Flocker's four lists.
pub(crate) const LISTS: [&str; 4] = [
    "/v1/configuration/datasets",
    "/v1/state/datasets",
    "/v1/state/nodes",
    "/v1/configuration/leases",
];

/// How long any wait may take.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
const PAUSE: Duration = Duration::from_millis(50);

/// A Flocker that, when dropped, leaves its mounts and devices behind as a killed process does.
pub(crate) struct Flocker {
    embedded: Embedded,
    client: Client,
}

impl Flocker {
    /// Starts one with its data below `directory` and options changed by `change`; its nodes are listed.
    pub(crate) async fn start(directory: &Path, change: impl FnOnce(Options) -> Options) -> Result<Self> {
        let options = Options {
            // The workspace is in memory.
            allocation: Allocation::Thin,
            ..Options::new(directory.join("flocker"), directory.join("certificates"))
        };
        let embedded = Embedded::start(change(options)).await?;
        let file = |name: &str| embedded.certificates().join(name);
        let credentials = Credentials::load(&file("cluster.crt"), &file("plugin.crt"), &file("plugin.key"))?;
        let settings = ClientSettings::new(embedded.address().into(), credentials);
        let client = tokio::task::spawn_blocking(|| Client::new(settings)).await??;
        let flocker = Self { embedded, client };
        let nodes = flocker.embedded.nodes().len();
        until("the nodes to report", async || {
            Ok(flocker.client.list_nodes().await?.len() == nodes)
        })
        .await?;
        Ok(flocker)
    }

    /// Returns a client that shares its connections with all other clients of this Flocker.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Returns a node by its number, counted from 1.
    pub(crate) fn node(&self, number: usize) -> Result<&NodeInfo> {
        let node = self.embedded.nodes().iter().find(|node| node.number == number);
        node.ok_or_else(|| format!("Flocker has no node {number}").into())
    }

    /// Returns the arguments with which a plugin uses this Flocker.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let file = |name: &str| self.embedded.certificates().join(name).display().to_string();
        vec![
            format!("--control-service=https://{}", self.embedded.address()),
            format!("--cluster-cert={}", file("cluster.crt")),
            format!("--user-cert={}", file("plugin.crt")),
            format!("--user-key={}", file("plugin.key")),
        ]
    }

    pub(crate) fn counters(&self) -> Counters {
        self.embedded.counters()
    }

    /// Stops it in good order.
    pub(crate) async fn stop(self) -> Result<()> {
        Ok(self.embedded.stop().await?)
    }
}

/// Returns how often each of the four lists was read between two moments.
pub(crate) fn reads(before: &Counters, after: &Counters) -> [u64; 4] {
    LISTS.map(|route| after.asked("GET", route) - before.asked("GET", route))
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut check: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !check().await? {
        if Instant::now() >= deadline {
            return Err(format!("waited {PATIENCE:?} in vain for {what}").into());
        }
        sleep(PAUSE).await;
    }
    Ok(())
}
