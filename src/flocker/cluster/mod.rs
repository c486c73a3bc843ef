//! Flocker's cluster: shared reads of its lists, and the writes.
//!
//! Flocker returns only whole lists and sends no notifications, so every wait polls. All waits of a process share their
//! requests ([`shared_reads`]): N waiters cost as much as one, and without waiters no list is read.

mod absence;
mod answering;
mod back_off;
mod certificates;
mod current_client;
mod health;
mod leases;
mod lists;
mod names;
mod polling;
mod recent;
mod shared_reads;
mod snapshot;
mod unreadable;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flocker_client::{AcquiredKind, Credentials, Dataset, DeletedGeneration, NewDataset, Unreadable};
use futures::FutureExt;
use supervised_tasks::Supervisor;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use absence::Absence;
pub(crate) use answering::Listed;
pub use certificates::{CertificateKeeper, FileCheck};
pub use current_client::Flocker;
pub(crate) use leases::LeaseOutcome;
pub use leases::Release;
pub use lists::Lists;
pub(crate) use names::{dataset_named, similar_name};
pub(crate) use polling::{AgentWork, FirstRead, Probe};
pub(crate) use snapshot::Snapshot;

use crate::error::{Error, Result};
use crate::operation::{Context, Elapsed, Phase};
use crate::telemetry::log_names;
use crate::telemetry::{Counter, Counters, Metrics};
use absence::Absences;
use current_client::RequestMetrics;
use leases::OwnReleases;
use polling::AgentTimes;
use recent::RecentAnswers;
use shared_reads::{Outcome, SharedReads, Urgency};
use unreadable::EntryLog;

/// The outcome of a request to create a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CreateOutcome {
    /// Flocker stored the dataset.
    Created(Dataset),
    /// A dataset of this id exists, live or deleted.
    IdTaken,
    /// A dataset of this id existed and is deleted; the last one of the same name and creator too, where it is known.
    IdOfDeleted(Option<DeletedGeneration>),
}

/// The outcome of a request to change a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// Flocker stored the change.
    Stored,
    /// The dataset does not exist, or no longer.
    NoSuchDataset,
}

/// How the reads of lists are doing.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    /// Whether the last one was answered; `None` before the first one.
    pub(crate) healthy: Option<bool>,
    /// How long ago Flocker last answered one.
    pub(crate) last_answer: Option<Duration>,
    /// How many callers wait for one.
    pub(crate) waiting: usize,
    /// How long ago the read began that has shown each list last; none of a list that was not read yet.
    pub(crate) list_ages: Vec<(&'static str, Duration)>,
}

/// The cluster; clones share everything.
#[derive(Clone)]
pub struct Cluster {
    flocker: Flocker,
    reads: Arc<SharedReads>,
    absences: Arc<Mutex<AbsenceWatch>>,
    metrics: Metrics,
    tasks: Supervisor,
    own_releases: OwnReleases,
    agent_times: AgentTimes,
    recent: RecentAnswers,
}

struct AbsenceWatch {
    absences: Absences,
    watching: bool,
}

impl Cluster {
    /// Makes the view of the cluster behind `flocker`. A node that has been missing for `takeover_grace` counts as gone.
    pub fn new(flocker: Flocker, takeover_grace: Duration) -> Self {
        let absences = Arc::new(Mutex::new(AbsenceWatch {
            absences: Absences::new(takeover_grace),
            watching: false,
        }));
        let watch = Arc::clone(&absences);
        let recent = RecentAnswers::default();
        let listed_last = recent.clone();
        let metrics = Metrics::default();
        let measured = metrics.clone();
        let observer = move |outcome: &Outcome| {
            measured.read_ended(outcome.is_ok());
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(snapshot) if snapshot.lists().contains(Lists::NODES) => {
                    let nodes: Vec<_> = snapshot.nodes().map(|node| node.uuid).collect();
                    let incomplete = snapshot.has_unknown_nodes();
                    watch.absences.listed(snapshot.began(), &nodes, incomplete);
                    listed_last.nodes_listed(snapshot.began(), &nodes);
                    log_names::set_nodes(snapshot.nodes().map(|node| (node.uuid, node.host.as_str())));
                }
                Ok(_) => {}
                Err(_) => watch.absences.interrupted(),
            }
        };
        flocker.observed_by(Arc::new(RequestMetrics(metrics.clone())));
        let source = flocker.clone();
        let supervisor = |stop| {
            let counters = metrics.counters().clone();
            Supervisor::new(stop, move || counters.count(Counter::TaskPanics))
        };
        let entries = Arc::new(EntryLog::default());
        let note = {
            let counters = metrics.counters().clone();
            move |kind, unreadable: &Unreadable| entries.note(kind, unreadable, &counters)
        };
        Self {
            reads: SharedReads::new(
                move |lists| Snapshot::fetch(source.clone(), lists, note.clone()).boxed(),
                Box::new(observer),
                // Calls that are still served during a stop read lists too; without them the task ends by itself.
                supervisor(CancellationToken::new()),
            ),
            flocker,
            absences,
            tasks: supervisor(CancellationToken::new()),
            metrics,
            own_releases: OwnReleases::default(),
            agent_times: AgentTimes::default(),
            recent,
        }
    }

    /// Returns the counters of the plugin that this cluster is seen by.
    pub fn counters(&self) -> &Counters {
        self.metrics.counters()
    }

    /// Returns the measurements of the plugin that this cluster is seen by.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns what starts the background tasks of the plugin. Its token ends them, and is the one that stops the plugin.
    pub(crate) fn tasks(&self) -> &Supervisor {
        &self.tasks
    }

    /// Describes when Flocker last answered, and its last error while it does not.
    pub(crate) fn health(&self) -> String {
        let health = self.reads.health();
        let good = last_answer(health.good);
        match (health.is_good(), health.bad) {
            (_, None) => format!("Flocker {good}, without errors"),
            // What it answered since has nothing to do with that error.
            (Some(true), Some(_)) => format!("Flocker {good}"),
            (_, Some((when, problem))) => {
                format!("Flocker {good}; its last error was {}: {problem}", ago(when))
            }
        }
    }

    /// Whether the last read was answered; `None` before the first one.
    pub(crate) fn is_healthy(&self) -> Option<bool> {
        self.reads.health().is_good()
    }

    /// Describes the reads of lists, for metrics.
    pub(crate) fn reads(&self) -> Reads {
        Reads {
            healthy: self.is_healthy(),
            last_answer: self.reads.health().good.map(|good| good.elapsed()),
            waiting: self.reads.waiting(),
            list_ages: self.reads.list_ages(),
        }
    }

    /// Returns the certificates in use.
    pub fn credentials(&self) -> Credentials {
        self.flocker.credentials()
    }

    /// Returns the task that replaces the certificates in use when their files change.
    pub fn certificate_keeper(&self) -> CertificateKeeper {
        CertificateKeeper::new(self.flocker.clone())
    }

    /// Returns a snapshot of `lists` whose read starts after this call.
    ///
    /// # Errors
    /// Flocker could not be read ([`crate::error::Situation::FlockerUnavailable`]).
    pub async fn fresh(&self, lists: Lists) -> Result<Arc<Snapshot>> {
        self.read(lists, Urgency::Now).await
    }

    async fn read(&self, lists: Lists, urgency: Urgency) -> Result<Arc<Snapshot>> {
        self.reads.join(lists, urgency).await.map_err(|error| {
            let good = last_answer(self.reads.health().good);
            Error::flocker(
                format!("read the state of the cluster from Flocker, which {good}"),
                error,
            )
        })
    }

    /// As [`Self::fresh`], as a step of an operation, which may be cancelled during it.
    ///
    /// # Errors
    /// Flocker could not be read, or [`crate::error::Situation::Cancelled`].
    pub(crate) async fn fresh_for(&self, context: &Context, lists: Lists) -> Result<Arc<Snapshot>> {
        let read = context.unless_cancelled(self.fresh(lists));
        let snapshot = context.during(Phase::FlockerAnswering, read).await??;
        snapshot.name_volume_of(context);
        Ok(snapshot)
    }

    /// Creates a dataset.
    ///
    /// # Errors
    /// Flocker refused or failed. After a failure the dataset may exist.
    pub(crate) async fn create_dataset(&self, new: &NewDataset) -> Result<CreateOutcome> {
        let doing = || format!("create dataset {}", new.dataset_id.unwrap_or_default());
        let client = self.client().await?;
        match client.create_dataset(new).await {
            Ok(dataset) => {
                self.recent.created(dataset.dataset_id, dataset.primary);
                Ok(CreateOutcome::Created(dataset))
            }
            Err(error) if error.is_conflict() => Ok(match error.taken_id() {
                Some(taken) if taken.deleted => CreateOutcome::IdOfDeleted(taken.highest_deleted),
                // Only a list shows what it is.
                Some(_) | None => CreateOutcome::IdTaken,
            }),
            Err(error) => Err(Error::flocker(doing(), error)),
        }
    }

    /// Makes the node `primary` the primary of a dataset.
    ///
    /// Flocker does not check leases here: the caller has read them, or holds the lease.
    ///
    /// # Errors
    /// Flocker refused or failed.
    pub(crate) async fn move_dataset(&self, dataset: Uuid, primary: Uuid) -> Result<WriteOutcome> {
        match self.client().await?.move_dataset(dataset, primary).await {
            Ok(_) => Ok(WriteOutcome::Stored),
            Err(error) if error.is_not_found() || error.is_deleted() => Ok(WriteOutcome::NoSuchDataset),
            Err(error) => Err(Error::flocker(
                format!("move dataset {dataset} to node {primary}"),
                error,
            )),
        }
    }

    /// Deletes a dataset; repeating it is harmless.
    ///
    /// Flocker does not check leases here: the caller has read them.
    ///
    /// # Errors
    /// Flocker refused or failed.
    pub(crate) async fn delete_dataset(&self, dataset: Uuid) -> Result<WriteOutcome> {
        self.recent.forget_created(dataset);
        match self.client().await?.delete_dataset(dataset).await {
            Ok(_) => Ok(WriteOutcome::Stored),
            Err(error) if error.is_not_found() => Ok(WriteOutcome::NoSuchDataset),
            Err(error) => Err(Error::flocker(format!("delete dataset {dataset}"), error)),
        }
    }

    /// Acquires the lease on `dataset` for `node`, without expiry: the only compare-and-set that Flocker has.
    ///
    /// # Errors
    /// Flocker refused or failed. After a failure the lease may be held.
    pub(crate) async fn acquire_lease(&self, dataset: Uuid, node: Uuid) -> Result<LeaseOutcome> {
        match self.client().await?.acquire_lease(dataset, node, None).await {
            Ok(acquired) => {
                self.own_releases.forget(dataset);
                Ok(if acquired.kind == AcquiredKind::New {
                    LeaseOutcome::New
                } else {
                    LeaseOutcome::Renewed
                })
            }
            Err(error) if error.is_conflict() => {
                self.counters().count(Counter::LeaseConflicts);
                Ok(LeaseOutcome::HeldByAnother)
            }
            Err(error) => Err(Error::flocker(
                format!("acquire the lease on dataset {dataset} for node {node}"),
                error,
            )),
        }
    }

    /// Returns the node that has reported the boot id `era`, if any.
    ///
    /// # Errors
    /// Flocker refused or failed.
    pub(crate) async fn node_by_era(&self, era: Uuid) -> Result<Option<Uuid>> {
        let found = self.client().await?.node_by_era(era).await;
        found.map_err(|error| Error::flocker(format!("find the node whose boot id is {era}"), error))
    }

    /// Returns what is known about a node that is not listed. Each call keeps it watched for ten minutes.
    pub(crate) fn absence(&self, node: Uuid) -> Absence {
        let mut watch = self.absences.lock().unwrap_or_else(PoisonError::into_inner);
        let absence = watch.absences.query(node, Instant::now());
        if !std::mem::replace(&mut watch.watching, true) {
            let watch = self.clone();
            self.tasks
                .spawn("watching absent nodes", move || watch.clone().watch_absences());
        }
        absence
    }

    async fn watch_absences(self) {
        loop {
            // The observer records the outcome. Urgent, without the pause of polls: a slow Flocker would break the run.
            self.reads.join(Lists::NODES, Urgency::Now).await.ok();
            tokio::time::sleep(absence::WATCH_EVERY).await;
            let mut watch = self.absences.lock().unwrap_or_else(PoisonError::into_inner);
            watch.watching = watch.absences.any(Instant::now());
            if !watch.watching {
                return;
            }
        }
    }

    async fn client(&self) -> Result<flocker_client::Client> {
        let client = self.flocker.client().await;
        client.map_err(|error| Error::flocker("prepare the connection to Flocker", error))
    }
}

fn last_answer(good: Option<Instant>) -> String {
    good.map_or("has not answered yet".to_owned(), |good| {
        format!("last answered {}", ago(good))
    })
}

fn ago(then: Instant) -> String {
    format!("{} ago", Elapsed(then.elapsed()))
}
