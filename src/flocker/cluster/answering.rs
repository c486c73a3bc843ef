//! The reads by which an idle process learns whether Flocker answers, and whether it lists this node.

use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::{Cluster, Lists};
use crate::error::Error;
use crate::operation::Elapsed;

/// How old an answer is before Flocker is asked for another one.
const ASK_AFTER: Duration = Duration::from_secs(15);
/// How long it may take to answer that.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How old the list of nodes is before it is read again. A dead node is listed for two minutes.
const NODES_AFTER: Duration = Duration::from_secs(60);
/// How old its last answer may be: what passes until the next one arrives in time, and the interval of the checks.
const ANSWERED_WITHIN: Duration = Duration::from_secs(40);

/// What the last list of the nodes says about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// It was listed then.
    Yes,
    /// Others were listed, and it was not.
    No,
    /// No node was listed, as in the first half minute of the control service, or no list was read.
    Unknown,
}

impl Cluster {
    /// Logs when Flocker stops answering and when it answers again, from now on.
    pub(crate) fn log_outages(&self) {
        self.reads.log_outages();
    }

    /// Whether Flocker answered the last read and no longer ago than a read takes that fails; `None` before the first one.
    pub(crate) fn answers(&self) -> Option<bool> {
        let healthy = self.is_healthy()?;
        let age = self.reads.health().good.map(|good| good.elapsed());
        Some(healthy && age.is_some_and(|age| age <= ANSWERED_WITHIN))
    }

    /// Returns what the last list of the nodes says about `node`.
    pub(crate) fn listed(&self, node: Uuid) -> Listed {
        match self.recent.last_nodes() {
            Some((_, nodes)) if nodes.contains(&node) => Listed::Yes,
            Some((_, nodes)) if !nodes.is_empty() => Listed::No,
            Some(_) | None => Listed::Unknown,
        }
    }

    /// Asks Flocker whether it answers, unless it has answered lately, and whether it lists `node`, unless that was read lately.
    ///
    /// Called every few seconds, it sends a request every 15 s where no other part does. One that failed is repeated at once,
    /// by a read of the nodes: calls may have stopped because of the failure.
    pub(crate) async fn keep_asking(&self, node: Option<Uuid>) {
        let good = self.reads.health().good;
        let age = good.map_or(Duration::MAX, |good| good.elapsed());
        let nodes_age = match self.recent.last_nodes() {
            Some((age, _)) => age,
            None => Duration::MAX,
        };
        let is_unlisted = node.is_some_and(|node| self.listed(node) != Listed::Yes);
        let reads_nodes = self.is_healthy() != Some(true)
            || (node.is_some() && nodes_age >= NODES_AFTER)
            || (is_unlisted && nodes_age >= ASK_AFTER);
        if reads_nodes {
            // The outcome is recorded, and an outage logged.
            self.fresh(Lists::NODES).await.ok();
        } else if age >= ASK_AFTER {
            self.ask_for_version().await;
        }
    }

    /// Asks for the version of Flocker, which costs it less than any list.
    async fn ask_for_version(&self) {
        let asking = async {
            match self.client().await?.version().await {
                Err(error) if !error.is_flockers_answer() => Err(Error::flocker("read its version", error)),
                Ok(_) | Err(_) => Ok(()),
            }
        };
        let answer = match timeout(ANSWERS_WITHIN, asking).await {
            Ok(answer) => answer.map_err(|error| error.chain()),
            Err(_elapsed) => Err(format!(
                "it has not answered GET /v1/version for {}",
                Elapsed(ANSWERS_WITHIN)
            )),
        };
        self.reads.note(answer);
    }
}
