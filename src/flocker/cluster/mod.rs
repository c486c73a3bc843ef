//! Flocker as this process sees it: one shared snapshot for reading, and the writes.
//!
//! Flocker returns only whole lists and notifies nobody, so whatever waits asks again and again. Here all of a
//! process's waiting shares its requests ([`flights`]): N waiters cost what one costs, and nothing is asked while
//! nobody waits.

mod absence;
mod certificates;
mod flights;
mod flocker;
mod leases;
mod lists;
mod pace;
mod snapshot;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flocker_client::{AcquiredKind, Credentials, Dataset, NewDataset};
use futures::FutureExt;
use tokio::time::Instant;
use uuid::Uuid;

pub use absence::Absence;
pub use certificates::{CertificateKeeper, Look};
pub use flocker::Flocker;
pub use leases::{Claim, LeaseCounts, Release};
pub use lists::Lists;
pub use snapshot::Snapshot;

use crate::error::{Error, Result};
use crate::operation::{Context, Phase};
use absence::Absences;
use flights::{Flights, Outcome, Urgency};
use pace::Pace;

/// What a waiter sees in a snapshot.
pub enum Probe<T> {
    /// What it waits for has come.
    Ready(T),
    /// It waits on, in this phase.
    Waiting(Phase),
}

/// What became of a request to create a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// Flocker stored it.
    Made(Dataset),
    /// A dataset of this id exists, live or deleted.
    IdTaken,
}

/// What became of a request to change a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Flocker stored it.
    Done,
    /// There is no such dataset any more.
    Gone,
}

/// The cluster; clones share everything.
#[derive(Clone)]
pub struct Cluster {
    flocker: Flocker,
    flights: Arc<Flights>,
    absences: Arc<Mutex<AbsenceWatch>>,
    lease_counts: Arc<Mutex<LeaseCounts>>,
}

struct AbsenceWatch {
    absences: Absences,
    watching: bool,
}

impl Cluster {
    /// Makes the view of the cluster behind `flocker`. A node that has been missing for `takeover_grace` is gone.
    pub fn new(flocker: Flocker, takeover_grace: Duration) -> Self {
        let absences = Arc::new(Mutex::new(AbsenceWatch {
            absences: Absences::new(takeover_grace),
            watching: false,
        }));
        let watch = Arc::clone(&absences);
        let observer = move |outcome: &Outcome| {
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(snapshot) if snapshot.lists().contains(Lists::NODES) => {
                    let nodes: Vec<_> = snapshot.nodes().map(|node| node.uuid).collect();
                    watch.absences.listed(snapshot.began(), &nodes);
                }
                Ok(_) => {}
                Err(_) => watch.absences.broken(),
            }
        };
        let source = flocker.clone();
        Self {
            flights: Flights::new(
                move |lists| Snapshot::fetch(source.clone(), lists).boxed(),
                Box::new(observer),
            ),
            flocker,
            absences,
            lease_counts: Arc::default(),
        }
    }

    /// Tells for people when Flocker last answered and what went wrong last.
    pub fn health(&self) -> String {
        let health = self.flights.health();
        let good = last_answer(health.good);
        match health.bad {
            Some((when, error)) => {
                let text = Error::flocker("read from Flocker", error).chain();
                format!("Flocker {good}; its last error was {}: {text}", ago(when))
            }
            None => format!("Flocker {good}, without errors"),
        }
    }

    /// Whether the last request of lists was answered; `None` before the first one.
    pub fn is_healthy(&self) -> Option<bool> {
        let health = self.flights.health();
        match (health.good, health.bad) {
            (None, None) => None,
            (good, bad) => Some(good >= bad.map(|(when, _)| when)),
        }
    }

    /// Returns the certificates in use, which tell until when they are valid.
    pub fn credentials(&self) -> Credentials {
        self.flocker.credentials()
    }

    /// Returns what looks after the certificates.
    pub fn certificate_keeper(&self) -> CertificateKeeper {
        CertificateKeeper::new(self.flocker.clone())
    }

    /// Returns a snapshot of `lists` whose flight began after this call.
    ///
    /// # Errors
    /// Flocker could not be read ([`crate::error::Situation::FlockerUnavailable`]).
    pub async fn fresh(&self, lists: Lists) -> Result<Arc<Snapshot>> {
        self.read(lists, Urgency::Now).await
    }

    /// Returns a snapshot of `lists` whose flight began after this call, and about that long after it: for a look that
    /// nobody waits for, and that is shared with everybody's polls.
    ///
    /// # Errors
    /// As of [`Self::fresh`].
    pub async fn later(&self, lists: Lists, after: Duration) -> Result<Arc<Snapshot>> {
        self.read(lists, Urgency::Poll(Instant::now() + after)).await
    }

    async fn read(&self, lists: Lists, urgency: Urgency) -> Result<Arc<Snapshot>> {
        self.flights.join(lists, urgency).await.map_err(|error| {
            let good = last_answer(self.flights.health().good);
            Error::flocker(
                format!("read the state of the cluster from Flocker, which {good}"),
                error,
            )
        })
    }

    /// As [`Self::fresh`], as a step of an operation, which can be cancelled meanwhile.
    ///
    /// # Errors
    /// Flocker could not be read, or [`crate::error::Situation::Cancelled`].
    pub async fn fresh_for(&self, context: &Context, lists: Lists) -> Result<Arc<Snapshot>> {
        let waiting_for = context.phase();
        context.enter(Phase::FlockerAnswering);
        let snapshot = context.unless_cancelled(self.fresh(lists)).await??;
        context.enter(waiting_for);
        Ok(snapshot)
    }

    /// Looks at fresh snapshots until `probe` is satisfied; a failed look is not the end.
    ///
    /// # Errors
    /// [`crate::error::Situation::Cancelled`].
    pub async fn wait_until<T>(
        &self,
        lists: Lists,
        context: &Context,
        mut probe: impl FnMut(&Snapshot) -> Probe<T>,
    ) -> Result<T> {
        let mut pace = Pace::default();
        let mut urgency = Urgency::Now;
        context.enter(Phase::FlockerAnswering);
        loop {
            let outcome = context
                .unless_cancelled(self.flights.join(lists, urgency))
                .await?;
            match &outcome {
                Ok(snapshot) => match probe(snapshot) {
                    Probe::Ready(found) => return Ok(found),
                    Probe::Waiting(phase) => context.enter(phase),
                },
                Err(_) => context.enter(Phase::FlockerAnswering),
            }
            // While Flocker is down, the flights of all that wait have one pause together.
            let wait = outcome.map_or(Duration::ZERO, |_| pace.next());
            urgency = Urgency::Poll(Instant::now() + wait);
        }
    }

    /// Waits until Flocker lists `node`, as a phase of `context`'s operation.
    ///
    /// # Errors
    /// [`crate::error::Situation::Cancelled`].
    pub async fn wait_for_node(&self, context: &Context, node: Uuid) -> Result<()> {
        self.wait_until(Lists::NODES, context, |snapshot| {
            if snapshot.lists_node(node) {
                Probe::Ready(())
            } else {
                Probe::Waiting(Phase::NodeReporting { node })
            }
        })
        .await
    }

    /// Creates a dataset.
    ///
    /// # Errors
    /// Flocker refused or failed; after a failure the dataset may exist all the same.
    pub async fn create_dataset(&self, new: &NewDataset) -> Result<Creation> {
        let doing = || format!("create dataset {}", new.dataset_id.unwrap_or_default());
        let client = self.client().await?;
        match client.create_dataset(new).await {
            Ok(dataset) => Ok(Creation::Made(dataset)),
            Err(error) if error.is_conflict() => Ok(Creation::IdTaken),
            Err(error) => Err(Error::flocker(doing(), error)),
        }
    }

    /// Makes `primary` the node of a dataset.
    ///
    /// Flocker does not look at leases here: whoever calls this has read them, or holds the lease.
    ///
    /// # Errors
    /// Flocker refused or failed.
    pub async fn move_dataset(&self, dataset: Uuid, primary: Uuid) -> Result<Change> {
        match self.client().await?.move_dataset(dataset, primary).await {
            Ok(_) => Ok(Change::Done),
            Err(error) if error.is_not_found() || error.is_deleted() => Ok(Change::Gone),
            Err(error) => Err(Error::flocker(
                format!("move dataset {dataset} to node {primary}"),
                error,
            )),
        }
    }

    /// Deletes a dataset; repeating it is harmless.
    ///
    /// Flocker does not look at leases here: whoever calls this has read them.
    ///
    /// # Errors
    /// Flocker refused or failed.
    pub async fn delete_dataset(&self, dataset: Uuid) -> Result<Change> {
        match self.client().await?.delete_dataset(dataset).await {
            Ok(_) => Ok(Change::Done),
            Err(error) if error.is_not_found() => Ok(Change::Gone),
            Err(error) => Err(Error::flocker(format!("delete dataset {dataset}"), error)),
        }
    }

    /// Acquires the lease on `dataset` for `node`, without expiry: the one compare-and-set Flocker has.
    ///
    /// # Errors
    /// Flocker refused or failed; after a failure the lease may be held all the same.
    pub async fn claim_lease(&self, dataset: Uuid, node: Uuid) -> Result<Claim> {
        match self.client().await?.acquire_lease(dataset, node, None).await {
            Ok(acquired) if acquired.kind == AcquiredKind::New => Ok(Claim::New),
            Ok(_) => Ok(Claim::Renewed),
            Err(error) if error.is_conflict() => Ok(Claim::HeldByAnother),
            Err(error) => Err(Error::flocker(
                format!("lease dataset {dataset} for node {node}"),
                error,
            )),
        }
    }

    /// Returns the node that has reported the boot id `era`, or nothing when none has.
    ///
    /// # Errors
    /// Flocker refused or failed.
    pub async fn node_by_era(&self, era: Uuid) -> Result<Option<Uuid>> {
        let found = self.client().await?.node_by_era(era).await;
        found.map_err(|error| Error::flocker(format!("look up the node that booted as {era}"), error))
    }

    /// Returns what is known about a node that is not listed; asking keeps it watched for ten minutes.
    pub fn absence(&self, node: Uuid) -> Absence {
        let mut watch = self.absences.lock().unwrap_or_else(PoisonError::into_inner);
        let absence = watch.absences.ask(node, Instant::now());
        if !std::mem::replace(&mut watch.watching, true) {
            tokio::spawn(self.clone().watch_absences());
        }
        absence
    }

    async fn watch_absences(self) {
        loop {
            // The observer takes in what comes of it. It does not rest as polls do: a slow Flocker would tear the run.
            self.flights.join(Lists::NODES, Urgency::Now).await.ok();
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
    format!("{:.1} s ago", then.elapsed().as_secs_f64())
}
