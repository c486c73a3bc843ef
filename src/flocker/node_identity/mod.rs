//! Which of Flocker's nodes this machine is.
//!
//! A setting or a file says it for certain. Else Flocker is asked for the node that has reported this machine's
//! boot id (its *era*), which nothing can forge by accident: the images of machines get cloned, with all that lies
//! on their disks. Only as long as Flocker has no answer, what lies there is believed: the node that Flocker named
//! last time, the node certificate, and, last, the address of this machine.

mod hints;
mod remembered;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flocker_client::Node;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Cluster, Lists};
use remembered::Remembered;

/// How long Flocker is asked for this machine's boot id before something less certain is believed: an agent
/// reports it a few seconds after it has started.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time between two questions while it has no answer.
const PAUSE: Duration = Duration::from_millis(500);
/// How long Flocker may take to confirm what is believed already, and how often it is asked to.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);
const CONFIRM_EVERY: Duration = Duration::from_secs(5);

/// Finds out which Flocker node this process runs on; it may have to ask Flocker, and fails until that answers.
pub type ThisNode = Arc<dyn Fn() -> BoxFuture<'static, Result<Uuid>> + Send + Sync>;

/// Where this node's UUID may be found.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The UUID itself, when it is a setting.
    pub node_id: Option<Uuid>,
    /// A file that holds it; need not exist.
    pub node_id_file: PathBuf,
    /// The certificate of Flocker's agent on this machine, whose common name holds it; need not exist.
    pub node_certificate: PathBuf,
    /// The file that holds the boot id of this machine.
    pub boot_id_file: PathBuf,
    /// Where the answer is remembered for a start without Flocker.
    pub state_dir: PathBuf,
}

impl Sources {
    /// Returns the sources of a machine that runs Flocker's agent with its usual files.
    pub fn new(node_id: Option<Uuid>, node_id_file: PathBuf, state_dir: PathBuf) -> Self {
        Self {
            node_id,
            node_id_file,
            node_certificate: PathBuf::from("/etc/flocker/node.crt"),
            boot_id_file: PathBuf::from("/proc/sys/kernel/random/boot_id"),
            state_dir,
        }
    }
}

/// What Flocker knows about its nodes.
pub trait Directory: Send + Sync {
    /// Returns the node that has reported `era`, or nothing when none has.
    fn node_by_era(&self, era: Uuid) -> BoxFuture<'_, Result<Option<Uuid>>>;

    /// Returns the nodes that report.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Node>>>;
}

impl Directory for Cluster {
    fn node_by_era(&self, era: Uuid) -> BoxFuture<'_, Result<Option<Uuid>>> {
        Cluster::node_by_era(self, era).boxed()
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Node>>> {
        async { Ok(self.fresh(Lists::NODES).await?.nodes().cloned().collect()) }.boxed()
    }
}

/// Finds out, once for all that ask, which of Flocker's nodes this machine is; clones share the answer.
#[derive(Clone)]
pub struct NodeIdentity {
    sources: Arc<Sources>,
    directory: Arc<dyn Directory>,
    // Held while Flocker is asked: whoever else wants to know waits for that answer.
    known: Arc<Mutex<Option<Known>>>,
}

#[derive(Clone, Copy)]
enum Known {
    Certain(Uuid),
    Believed { node: Uuid, ask_again: Instant },
}

/// What Flocker said to a boot id.
enum Answer {
    Node(Uuid),
    /// No node has reported it.
    NotYet,
    Unreachable(Error),
}

impl NodeIdentity {
    /// Makes the identity that is found in `sources` and, if they do not settle it, in `directory`.
    pub fn new(sources: Sources, directory: impl Directory + 'static) -> Self {
        Self {
            sources: Arc::new(sources),
            directory: Arc::new(directory),
            known: Arc::default(),
        }
    }

    /// Returns this node's UUID. Flocker is asked until its answer is in, and never again.
    ///
    /// Takes up to ten seconds, as long as the agent on this machine has not reported to Flocker. May be dropped at
    /// any time.
    ///
    /// # Errors
    /// [`Situation::NodeNotReporting`] or [`Situation::FlockerUnavailable`] when Flocker cannot tell and nothing
    /// on this machine does; [`Situation::Internal`] when a file does not hold what it should.
    pub async fn resolve(&self) -> Result<Uuid> {
        let mut known = self.known.lock().await;
        match *known {
            Some(Known::Certain(node)) => Ok(node),
            Some(Known::Believed { node, ask_again }) if Instant::now() < ask_again => Ok(node),
            Some(Known::Believed { node, .. }) => {
                *known = Some(self.confirm(node).await?);
                Ok(known.map_or(node, Known::node))
            }
            None => {
                let found = self.find().await?;
                *known = Some(found);
                Ok(found.node())
            }
        }
    }

    async fn find(&self) -> Result<Known> {
        if let Some(node) = self.local(hints::configured).await? {
            return Ok(Known::Certain(node));
        }
        let era = self
            .local(|sources| hints::boot_id(&sources.boot_id_file))
            .await?;
        let remembered = self
            .local(|sources| Ok(Remembered::read(&sources.state_dir)))
            .await?;
        if let Some(node) = remembered.and_then(|remembered| remembered.of_boot(era)) {
            return self.confirm(node).await;
        }
        let give_up = Instant::now() + PATIENCE;
        let unanswered = loop {
            match self.ask(era, give_up).await {
                Answer::Node(node) => return Ok(self.certain(node, era).await),
                unanswered @ Answer::Unreachable(_) => break unanswered,
                unanswered @ Answer::NotYet if Instant::now() + PAUSE > give_up => break unanswered,
                Answer::NotYet => sleep(PAUSE).await,
            }
        };
        // While Flocker answers, a memory of an earlier boot proves nothing: the disk may be a clone's.
        if let (Some(remembered), Answer::Unreachable(_)) = (remembered, &unanswered) {
            return Ok(believed(
                remembered.node(),
                "Flocker named it before this machine was started",
            ));
        }
        if let Some(node) = self
            .local(|sources| hints::certified(&sources.node_certificate))
            .await?
        {
            return Ok(believed(
                node,
                "the certificate of Flocker's agent on this machine is made out to it",
            ));
        }
        if matches!(unanswered, Answer::NotYet)
            && let Ok(nodes) = self.directory.nodes().await
            && let Some(node) = self
                .local(move |_| Ok(hints::at_an_address_of_ours(&nodes)))
                .await?
        {
            return Ok(believed(node, "it reports an address of this machine"));
        }
        Err(self.unknown(era, unanswered))
    }

    /// Asks Flocker once more about what is only believed.
    async fn confirm(&self, node: Uuid) -> Result<Known> {
        let era = self
            .local(|sources| hints::boot_id(&sources.boot_id_file))
            .await?;
        let Answer::Node(named) = self.ask(era, Instant::now() + CONFIRM_WITHIN).await else {
            return Ok(Known::Believed {
                node,
                ask_again: Instant::now() + CONFIRM_EVERY,
            });
        };
        if named != node {
            tracing::warn!(
                "This machine is node {named} as Flocker says, not {node} as was believed; {named} counts from here on"
            );
        }
        Ok(self.certain(named, era).await)
    }

    async fn ask(&self, era: Uuid, until: Instant) -> Answer {
        match timeout_at(until, self.directory.node_by_era(era)).await {
            Ok(Ok(Some(node))) => Answer::Node(node),
            Ok(Ok(None)) => Answer::NotYet,
            Ok(Err(error)) => Answer::Unreachable(error),
            Err(_) => {
                let text = "Flocker has not said in time which node this is";
                Answer::Unreachable(Error::new(Situation::FlockerUnavailable, text))
            }
        }
    }

    /// Remembers what Flocker said.
    async fn certain(&self, node: Uuid, era: Uuid) -> Known {
        let remembering = self.local(move |sources| Remembered::new(node, era).write(&sources.state_dir));
        if let Err(error) = remembering.await {
            tracing::warn!(error = %error.chain(), "After a restart without Flocker it will not be known which node this is");
        }
        tracing::info!(node = %node, "This machine is Flocker's node {node}");
        Known::Certain(node)
    }

    /// Reads files off the runtime's own threads.
    async fn local<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Sources) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let sources = Arc::clone(&self.sources);
        let reading = tokio::task::spawn_blocking(move || read(&sources)).await;
        reading.map_err(|panicked| Error::internal("find out which node this is", panicked))?
    }

    fn unknown(&self, era: Uuid, unanswered: Answer) -> Error {
        let Sources {
            node_id_file,
            node_certificate,
            ..
        } = &*self.sources;
        let (file, certificate) = (node_id_file.display(), node_certificate.display());
        let look = format!("neither {file} nor {certificate} is there to tell, and node_id is not set");
        match unanswered {
            Answer::Unreachable(error) => error.context(format!(
                "it is not known which node of Flocker this machine is: {look}"
            )),
            Answer::Node(_) | Answer::NotYet => Error::new(
                Situation::NodeNotReporting,
                format!(
                    "it is not known which node of Flocker this machine is: no node has reported its boot id {era} \
                     (does flocker-dataset-agent run here?), {look}"
                ),
            ),
        }
    }
}

impl Known {
    fn node(self) -> Uuid {
        match self {
            Self::Certain(node) | Self::Believed { node, .. } => node,
        }
    }
}

fn believed(node: Uuid, why: &str) -> Known {
    tracing::warn!(node = %node, "Flocker does not say which node this is; taken for node {node}, because {why}");
    Known::Believed {
        node,
        ask_again: Instant::now() + CONFIRM_EVERY,
    }
}

/// Reads the UUID from the file in which it may have been set, to find a mistake early.
///
/// # Errors
/// The file is there and cannot be read, or does not hold a UUID.
pub fn check(sources: &Sources) -> Result<()> {
    hints::configured(sources).map(drop)
}

#[cfg(test)]
mod tests;
