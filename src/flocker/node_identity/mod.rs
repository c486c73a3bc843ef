//! Which of Flocker's nodes this machine is.
//!
//! A setting or a file decides it. Else Flocker is asked for the node that has reported this machine's boot id (its
//! *era*): images of machines are cloned with all their files, but no two machines have the same boot id. Only while
//! Flocker has no answer, the files of this machine are believed: the node that Flocker named last, the node certificate,
//! and finally the address of this machine.

mod evidence;
mod local_sources;
mod saved_node;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use flocker_client::Node;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Cluster, Lists};
use crate::host::{BOOT_ID_FILE, host_name};
use crate::telemetry::spawn_blocking;
use evidence::Found;
pub(crate) use evidence::NodeEvidence;
use saved_node::SavedNode;

/// How long Flocker is asked for this machine's boot id before a less certain source is believed: an agent reports it a
/// few seconds after its start.
const ASK_FOR: Duration = Duration::from_secs(10);
/// The time between two requests while it has no answer.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long Flocker may take to confirm a node that is believed.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);
/// The time between two requests to confirm it.
const CONFIRM_EVERY: Duration = Duration::from_secs(5);

/// Finds out which of Flocker's nodes this process runs on. It may have to ask Flocker, and fails until Flocker answers.
pub type ThisNode = Arc<dyn Fn() -> BoxFuture<'static, Result<Uuid>> + Send + Sync>;

/// The sources of this node's UUID.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// The UUID itself, from the settings.
    pub(crate) node_id: Option<Uuid>,
    /// A file that holds it. It need not exist.
    pub(crate) node_id_file: PathBuf,
    /// The certificate of Flocker's agent on this machine, whose common name holds it. It need not exist.
    pub(crate) node_certificate: PathBuf,
    /// The file that holds the boot id of this machine.
    pub(crate) boot_id_file: PathBuf,
    /// The directory of the file with Flocker's last answer, for a start without Flocker.
    pub(crate) state_dir: PathBuf,
}

impl Sources {
    /// Returns the sources of a machine that runs Flocker's agent with its usual files.
    pub(crate) fn new(node_id: Option<Uuid>, node_id_file: PathBuf, state_dir: PathBuf) -> Self {
        Self {
            node_id,
            node_id_file,
            node_certificate: PathBuf::from("/etc/flocker/node.crt"),
            boot_id_file: PathBuf::from(BOOT_ID_FILE),
            state_dir,
        }
    }
}

/// What Flocker knows about its nodes.
pub(crate) trait NodeDirectory: Send + Sync {
    /// Returns the node that has reported `era`, if any.
    fn node_by_era(&self, era: Uuid) -> BoxFuture<'_, Result<Option<Uuid>>>;

    /// Returns the nodes that report.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Node>>>;
}

impl NodeDirectory for Cluster {
    fn node_by_era(&self, era: Uuid) -> BoxFuture<'_, Result<Option<Uuid>>> {
        Cluster::node_by_era(self, era).boxed()
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Node>>> {
        async { Ok(self.fresh(Lists::NODES).await?.nodes().cloned().collect()) }.boxed()
    }
}

/// Finds out which of Flocker's nodes this machine is, once for all callers; clones share the answer.
#[derive(Clone)]
pub(crate) struct NodeIdentity {
    sources: Arc<Sources>,
    directory: Arc<dyn NodeDirectory>,
    // Held while Flocker is asked: concurrent callers wait for that answer.
    known: Arc<Mutex<Option<Known>>>,
    /// The answer alone, for those that do not wait for it.
    latest: Arc<watch::Sender<Option<Uuid>>>,
}

#[derive(Clone, Copy)]
enum Known {
    Certain(Uuid),
    Believed { node: Uuid, ask_again: Instant },
}

/// Flocker's answer to a boot id.
enum Answer {
    Node(Uuid),
    /// No node has reported it.
    NotYet,
    Unreachable(Error),
}

impl NodeIdentity {
    /// Makes the identity that is found in `sources` and, if they do not settle it, in `directory`.
    pub(crate) fn new(sources: Sources, directory: impl NodeDirectory + 'static) -> Self {
        Self {
            sources: Arc::new(sources),
            directory: Arc::new(directory),
            known: Arc::default(),
            latest: Arc::default(),
        }
    }

    /// Returns this node's UUID. After Flocker's first answer it is not asked again.
    ///
    /// It takes up to ten seconds while the agent on this machine has not reported to Flocker. It may be dropped at any
    /// time.
    ///
    /// # Errors
    /// [`Situation::NodeNotReporting`] or [`Situation::FlockerUnavailable`] when neither Flocker nor
    /// this machine has an answer; [`Situation::Internal`] when a file does not hold what it should.
    pub(crate) async fn resolve(&self) -> Result<Uuid> {
        let mut known = self.known.lock().await;
        match *known {
            Some(Known::Certain(node)) => Ok(node),
            Some(Known::Believed { node, ask_again }) if Instant::now() < ask_again => Ok(node),
            Some(Known::Believed { node, .. }) => {
                let found = self.confirm(node).await?;
                if found.is_certain() && found.node == node {
                    tracing::info!(node.id = %node, "Flocker confirms that this machine is its node {node}");
                }
                Ok(self.note(&mut known, &found).await)
            }
            None => {
                let found = self.find(ASK_FOR).await?;
                let node = self.note(&mut known, &found).await;
                log_found(&found);
                Ok(node)
            }
        }
    }

    /// Returns this node's UUID and what it is known by, within a second if Flocker answers. Nothing is saved.
    ///
    /// # Errors
    /// Those of [`Self::resolve`].
    pub(crate) async fn look_up(&self) -> Result<(Uuid, NodeEvidence)> {
        let found = self.find(CONFIRM_WITHIN).await?;
        Ok((found.node, found.by))
    }

    /// Returns this node's UUID if it has been determined.
    pub(crate) fn known(&self) -> Option<Uuid> {
        *self.latest.borrow()
    }

    /// Finds out which node this is. Flocker is asked about its boot id for as long as `ask_for`.
    async fn find(&self, ask_for: Duration) -> Result<Found> {
        if let Some((node, how)) = self.local(local_sources::configured).await? {
            return Ok(Found::configured(node, &self.sources, how));
        }
        let era = self.local(local_sources::era).await?;
        let saved = self
            .local(|sources| Ok(SavedNode::read(&sources.state_dir)))
            .await?;
        if let Some(node) = saved.and_then(|saved| saved.of_boot(era)) {
            return self.confirm(node).await;
        }
        let unanswered = match self.ask_until_reported(era, ask_for).await {
            Answer::Node(node) => return Ok(Found::by_flocker(node, era)),
            unanswered => unanswered,
        };
        // While Flocker answers, a file of an earlier boot proves nothing: the disk may be a clone's.
        if let (Some(saved), Answer::Unreachable(_)) = (saved, &unanswered) {
            return Ok(Found::believed(saved.node(), NodeEvidence::EarlierBoot));
        }
        if let Some(node) = self
            .local(|sources| local_sources::certified(&sources.node_certificate))
            .await?
        {
            return Ok(Found::believed(node, NodeEvidence::Certificate));
        }
        if matches!(unanswered, Answer::NotYet)
            && let Ok(nodes) = self.directory.nodes().await
            && let Some(node) = self
                .local(move |_| Ok(local_sources::with_local_address(&nodes)))
                .await?
        {
            return Ok(Found::believed(node, NodeEvidence::Address));
        }
        Err(self.not_found(era, unanswered))
    }

    /// Asks Flocker about a node that is only believed.
    async fn confirm(&self, node: Uuid) -> Result<Found> {
        let era = self.local(local_sources::era).await?;
        let Answer::Node(named) = self.ask(era, Instant::now() + CONFIRM_WITHIN).await else {
            return Ok(Found::believed(node, NodeEvidence::ThisBoot));
        };
        if named != node {
            tracing::warn!(
                node.id = %named,
                "Flocker says that this machine is node {named}, not node {node} as its files say; node {named} is used"
            );
        }
        Ok(Found::by_flocker(named, era))
    }

    /// Notes and saves what was found, and returns the node.
    async fn note(&self, known: &mut Option<Known>, found: &Found) -> Uuid {
        let node = found.node;
        if let Some(era) = found.era {
            self.save(node, era).await;
        }
        *known = Some(if found.is_certain() {
            Known::Certain(node)
        } else {
            Known::Believed {
                node,
                ask_again: Instant::now() + CONFIRM_EVERY,
            }
        });
        self.latest.send_replace(Some(node));
        node
    }

    /// Asks Flocker until a node has reported `era`, for a limited time; a Flocker that does not answer is asked once.
    async fn ask_until_reported(&self, era: Uuid, ask_for: Duration) -> Answer {
        let until = Instant::now() + ask_for;
        let ask = || async {
            match self.ask(era, until).await {
                Answer::NotYet => Err(Answer::NotYet),
                answer => Ok(answer),
            }
        };
        let (Ok(answer) | Err(answer)) = ask
            .retry(
                ConstantBuilder::default()
                    .with_delay(ASK_EVERY)
                    .without_max_times(),
            )
            .when(|_| Instant::now() + ASK_EVERY <= until)
            .await;
        answer
    }

    async fn ask(&self, era: Uuid, until: Instant) -> Answer {
        match timeout_at(until, self.directory.node_by_era(era)).await {
            Ok(Ok(Some(node))) => Answer::Node(node),
            Ok(Ok(None)) => Answer::NotYet,
            Ok(Err(error)) => Answer::Unreachable(error),
            Err(_) => {
                let text = "Flocker has not answered in time which node this machine is";
                Answer::Unreachable(Error::new(Situation::FlockerUnavailable, text))
            }
        }
    }

    /// Saves Flocker's answer.
    async fn save(&self, node: Uuid, era: Uuid) {
        let saved = self.local(move |sources| SavedNode::new(node, era).write(&sources.state_dir));
        if let Err(error) = saved.await {
            tracing::warn!(error = %error.chain(), "Flocker's answer which node this machine is was not saved: a start without Flocker will not know it");
        }
    }

    /// Reads files off the runtime's own threads.
    async fn local<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Sources) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let sources = Arc::clone(&self.sources);
        let reading = spawn_blocking(move || read(&sources)).await;
        reading.map_err(|ended| Error::task("reading which node this machine is", &ended))?
    }

    fn not_found(&self, era: Uuid, unanswered: Answer) -> Error {
        let Sources {
            node_id_file,
            node_certificate,
            ..
        } = &*self.sources;
        let (file, certificate) = (node_id_file.display(), node_certificate.display());
        let missing = format!("neither {file} nor {certificate} exists, and node_id is not set");
        match unanswered {
            Answer::Unreachable(error) => error.context(format!(
                "it is not known which node of Flocker this machine is: {missing}"
            )),
            Answer::Node(_) | Answer::NotYet => Error::new(
                Situation::NodeNotReporting,
                format!(
                    "it is not known which node of Flocker this machine is: no node has reported its boot id {era} \
                     (does flocker-dataset-agent run here?), {missing}"
                ),
            ),
        }
    }
}

fn log_found(found: &Found) {
    let (node, host, how) = (found.node, host_name(), &found.how);
    if found.is_certain() {
        tracing::info!(node.id = %node, host.name = host, "This machine, {host}, is Flocker's node {node}: {how}");
    } else {
        tracing::warn!(
            node.id = %node,
            host.name = host,
            "This machine, {host}, is assumed to be Flocker's node {node}: {how}; Flocker is asked again"
        );
    }
}

/// Checks the file that may hold the UUID, to find a mistake early.
///
/// # Errors
/// The file exists and cannot be read, or does not hold a UUID.
pub(crate) fn check(sources: &Sources) -> Result<()> {
    local_sources::configured(sources).map(drop)
}

#[cfg(test)]
mod tests;
