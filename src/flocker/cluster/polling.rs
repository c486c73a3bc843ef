//! Waits for something that Flocker's lists will show.
//!
//! A waiter names the lists that can answer it, and only these are read. It polls as early as the last reads were cheap, then
//! ever more rarely.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::back_off::poll_waits;
use super::shared_reads::Urgency;
use super::{Cluster, Lists, Snapshot};
use crate::error::Result;
use crate::operation::{Context, Phase};

/// How often the lists are read that show whether a wait can still end.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// The longest first wait for a work of Flocker's agents, however long these take.
const LONGEST_FIRST_WAIT: Duration = Duration::from_secs(2);
/// How many works of a kind are remembered.
const REMEMBERED: usize = 3;

/// What a snapshot means to a waiter.
pub(crate) enum Probe<T> {
    /// The wait is over.
    Ready(T),
    /// The wait continues, in this phase.
    Waiting(Phase),
    /// The snapshot proves nothing without these lists too: they are read with the others, at once and from then on.
    Needs(Lists),
}

/// When a wait reads for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstRead {
    /// At once: what is waited for may have happened long ago.
    AtOnce,
    /// As early as reads are cheap: what is waited for follows a request that Flocker has just answered.
    Soon,
    /// The same, and where reads are not cheap, not before half of the time that this work of Flocker's agents has taken at
    /// least.
    After(AgentWork),
}

/// What Flocker's agents do after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentWork {
    /// They create a backing volume.
    Creating,
    /// They unmount, detach and destroy one.
    Destroying,
}

/// How long the agents have taken for their last works, until a read showed it.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentTimes(Arc<Mutex<Times>>);

#[derive(Debug, Default)]
struct Times {
    creating: VecDeque<Duration>,
    destroying: VecDeque<Duration>,
}

impl AgentTimes {
    fn note(&self, work: AgentWork, taken: Duration) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = match work {
            AgentWork::Creating => &mut times.creating,
            AgentWork::Destroying => &mut times.destroying,
        };
        times.truncate(REMEMBERED - 1);
        times.push_front(taken);
    }

    /// Returns for how long a work need not be polled for: half of the shortest time that it took lately. Destroying a volume
    /// takes the agents more steps than creating it, so until it is known, it is taken for as long as that.
    fn certain(&self, work: AgentWork) -> Duration {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shortest = |times: &VecDeque<Duration>| times.iter().min().copied();
        let creating = shortest(&times.creating).unwrap_or_default();
        let certain = match work {
            AgentWork::Creating => creating / 2,
            AgentWork::Destroying => shortest(&times.destroying).map_or(creating, |shortest| shortest / 2),
        };
        certain.min(LONGEST_FIRST_WAIT)
    }
}

impl Cluster {
    /// Polls until `probe` is ready. A failed read does not end the wait.
    ///
    /// # Errors
    /// [`crate::error::Situation::Cancelled`].
    pub(crate) async fn wait_until<T>(
        &self,
        (lists, first): (Lists, FirstRead),
        context: &Context,
        mut probe: impl FnMut(&Snapshot) -> Probe<T>,
    ) -> Result<T> {
        let (began, mut lists) = (Instant::now(), lists);
        let pace = self.reads.pace();
        let (mut waits, mut urgency) = match first {
            FirstRead::AtOnce => (poll_waits(pace.first_wait()), Urgency::Now),
            FirstRead::Soon | FirstRead::After(_) => {
                let known = match first {
                    FirstRead::After(work) => self.agent_times.certain(work),
                    FirstRead::AtOnce | FirstRead::Soon => Duration::ZERO,
                };
                let mut waits = poll_waits(pace.first_wait_for(known));
                let wait = waits.next().unwrap_or_default();
                (waits, Urgency::Poll(began + wait))
            }
        };
        if first == FirstRead::AtOnce {
            context.enter(Phase::FlockerAnswering);
        }
        loop {
            let outcome = context.unless_cancelled(self.reads.join(lists, urgency)).await?;
            match &outcome {
                Ok(snapshot) => {
                    snapshot.name_volume_of(context);
                    match probe(snapshot) {
                        Probe::Ready(found) => {
                            if let FirstRead::After(work) = first {
                                self.agent_times.note(work, began.elapsed());
                            }
                            return Ok(found);
                        }
                        Probe::Waiting(phase) => context.enter(phase),
                        Probe::Needs(more) => {
                            lists |= more;
                            urgency = Urgency::Now;
                            continue;
                        }
                    }
                }
                Err(_) => context.enter(Phase::FlockerAnswering),
            }
            // While Flocker is down, the shared reads have one pause for all waiters.
            let wait = outcome.map_or(Duration::ZERO, |_| waits.next().unwrap_or_default());
            urgency = Urgency::Poll(Instant::now() + wait);
        }
    }

    /// As [`Self::wait_until`], for what may never happen: every 10 s `check` is shown `checked`, other lists, and may end
    /// the wait. A read of these that fails proves nothing.
    ///
    /// # Errors
    /// Those of [`Self::wait_until`].
    pub(crate) async fn wait_unless<T>(
        &self,
        wait: (Lists, FirstRead),
        context: &Context,
        probe: impl FnMut(&Snapshot) -> Probe<T>,
        checked: Lists,
        mut check: impl FnMut(&Snapshot) -> Option<T>,
    ) -> Result<T> {
        let mut wait = std::pin::pin!(self.wait_until(wait, context, probe));
        loop {
            tokio::select! {
                found = &mut wait => return found,
                read = self.later(checked, CHECK_EVERY) => {
                    if let Some(found) = read.ok().and_then(|snapshot| check(&snapshot)) {
                        return Ok(found);
                    }
                }
            }
        }
    }

    /// Returns a snapshot of `lists` whose read starts about `after` from now, and is shared with other polls.
    ///
    /// # Errors
    /// Those of [`Self::fresh`].
    pub(crate) async fn later(&self, lists: Lists, after: Duration) -> Result<Arc<Snapshot>> {
        self.read(lists, Urgency::Poll(Instant::now() + after)).await
    }

    /// Returns the waits between polls for what may have happened already: as early as reads are cheap, then growing.
    pub(crate) fn poll_waits(&self) -> impl Iterator<Item = Duration> + Send + Sync + use<> {
        poll_waits(self.reads.pace().first_wait())
    }

    /// Waits until Flocker lists `node`, as a phase of `context`'s operation.
    ///
    /// # Errors
    /// [`crate::error::Situation::Cancelled`].
    pub(crate) async fn wait_for_node(&self, context: &Context, node: Uuid) -> Result<()> {
        self.wait_until((Lists::NODES, FirstRead::AtOnce), context, |snapshot| {
            if snapshot.lists_node(node) {
                Probe::Ready(())
            } else {
                Probe::Waiting(Phase::NodeReporting { node })
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_shortest_time_lately_needs_no_poll_up_to_two_seconds() {
        let times = AgentTimes::default();
        assert_eq!(times.certain(AgentWork::Creating), Duration::ZERO);
        let cases = [
            (30_000, 2_000),
            (3_000, 1_500),
            (9_000, 1_500),
            (8_000, 1_500),
            (7_000, 2_000),
            (40, 20),
        ];
        for (taken, certain) in cases {
            times.note(AgentWork::Creating, Duration::from_millis(taken));
            let found = times.certain(AgentWork::Creating);
            assert_eq!(found, Duration::from_millis(certain), "after {taken} ms");
        }
        let destroying = || times.certain(AgentWork::Destroying);
        assert_eq!(destroying(), Duration::from_millis(40));
        times.note(AgentWork::Destroying, Duration::from_millis(60));
        assert_eq!(destroying(), Duration::from_millis(30));
    }
}
