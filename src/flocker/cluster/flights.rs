//! Single flight: whoever needs Flocker's lists at the same time shares one set of requests.
//!
//! A request is answered by the first flight that began after it was made and brings all its lists. One task
//! flies for all of them; it ends when nobody waits, so an idle process asks Flocker nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::lists::Lists;
use super::pace::BackOff;
use super::snapshot::Snapshot;

/// The result of a flight, shared by everybody it answers.
pub(super) type Outcome = Result<Arc<Snapshot>, Arc<flocker_client::Error>>;

/// Is told of every flight that has ended, in their order, whether or not anybody still waits for it.
pub(super) type Observer = Box<dyn Fn(&Outcome) + Send + Sync>;

/// Reads lists from Flocker.
type Fetch = dyn Fn(Lists) -> BoxFuture<'static, Result<Snapshot, flocker_client::Error>> + Send + Sync;

/// Polls that are due within this time of each other fly together.
const COALESCE: Duration = Duration::from_millis(100);
/// Between two polls lies at least this many times what the last flight took: one Python core serves everybody.
const REST: u32 = 10;
/// After a flight with several who need an answer at once, the next of them wait as long as it took for each but one,
/// up to this many times: a crowd gathers, and leaves Flocker most of its time; one caller alone is never kept waiting.
const GATHER: u32 = 3;
/// Whoever needs an answer at once waits at most this long, for others or after a flight that failed.
const LONGEST_HURRY: Duration = Duration::from_secs(1);

/// When a request has to fly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// At once; a little later in a crowd, and when the control service is down.
    Now,
    /// At that moment, or with an earlier flight; later when the control service is slow or down.
    Poll(Instant),
}

struct Request {
    lists: Lists,
    urgency: Urgency,
    reply: oneshot::Sender<Outcome>,
}

/// What is known about Flocker's health.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    /// When the last flight succeeded.
    pub(super) good: Option<Instant>,
    /// When and why the last flight that failed did so.
    pub(super) bad: Option<(Instant, Arc<flocker_client::Error>)>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    flying: bool,
    rests: Rests,
    back_off: BackOff,
    health: Health,
}

/// Until when nobody flies, after the last flight.
#[derive(Clone, Copy, Debug, Default)]
struct Rests {
    polls: Option<Instant>,
    hurry: Option<Instant>,
}

/// The flights of this process.
pub(super) struct Flights {
    fetch: Box<Fetch>,
    observer: Observer,
    state: Mutex<State>,
    wake: Notify,
}

impl Flights {
    pub(super) fn new(
        fetch: impl Fn(Lists) -> BoxFuture<'static, Result<Snapshot, flocker_client::Error>>
        + Send
        + Sync
        + 'static,
        observer: Observer,
    ) -> Arc<Self> {
        Arc::new(Self {
            fetch: Box::new(fetch),
            observer,
            state: Mutex::default(),
            wake: Notify::new(),
        })
    }

    pub(super) fn health(&self) -> Health {
        self.lock().health.clone()
    }

    /// Takes part in the next flight that `urgency` allows and that begins after this call.
    pub(super) async fn join(self: &Arc<Self>, lists: Lists, urgency: Urgency) -> Outcome {
        loop {
            let (reply, outcome) = oneshot::channel();
            let start = {
                let mut state = self.lock();
                state.requests.push(Request {
                    lists,
                    urgency,
                    reply,
                });
                !std::mem::replace(&mut state.flying, true)
            };
            if start {
                tokio::spawn(Arc::clone(self).fly());
            } else {
                self.wake.notify_one();
            }
            // A pilot that panicked has dropped the reply; the next round finds another one.
            if let Ok(outcome) = outcome.await {
                return outcome;
            }
        }
    }

    async fn fly(self: Arc<Self>) {
        let _seat = Seat(&self);
        while let Some(due) = self.next_departure() {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.wake.notified() => continue,
            }
            let Some(lists) = self.passengers() else { continue };
            let began = Instant::now();
            let aboard = self.board(lists);
            let in_a_hurry = aboard
                .iter()
                .filter(|request| request.urgency == Urgency::Now)
                .count();
            let polled = in_a_hurry < aboard.len();
            let outcome = (self.fetch)(lists).await.map(Arc::new).map_err(Arc::new);
            self.land(began, &outcome, polled, in_a_hurry);
            (self.observer)(&outcome);
            for request in aboard {
                // Whoever stopped waiting has dropped the other end.
                request.reply.send(outcome.clone()).ok();
            }
        }
    }

    /// Returns when the next flight has to begin, or nothing, and then the pilot has retired.
    fn next_departure(&self) -> Option<Instant> {
        let mut state = self.lock();
        state.requests.retain(|request| !request.reply.is_closed());
        let rests = state.rests;
        let due = state
            .requests
            .iter()
            .map(|request| rests.departure(request.urgency))
            .min();
        state.flying = due.is_some();
        due
    }

    /// Returns what the requests that are due need, or nothing when none is.
    fn passengers(&self) -> Option<Lists> {
        let mut state = self.lock();
        // Whoever gave up while the pilot slept needs nothing any more.
        state.requests.retain(|request| !request.reply.is_closed());
        let horizon = Instant::now() + COALESCE;
        state
            .requests
            .iter()
            .filter(|request| state.rests.departure(request.urgency) <= horizon)
            .map(|request| request.lists)
            .reduce(|all, lists| all | lists)
    }

    /// Takes out every request that a flight with `lists` answers, due or not.
    fn board(&self, lists: Lists) -> Vec<Request> {
        let mut state = self.lock();
        state
            .requests
            .extract_if(.., |request| lists.contains(request.lists))
            .collect()
    }

    fn land(&self, began: Instant, outcome: &Outcome, polled: bool, in_a_hurry: usize) {
        let now = Instant::now();
        let mut state = self.lock();
        match outcome {
            Ok(_) => {
                if state.back_off.succeeded() {
                    state.rests.polls = None;
                }
                let length = now - began;
                // A flight that nobody polled with must not keep those who do waiting.
                if polled {
                    state.rests.polls = Some(now + length * REST);
                }
                let others = u32::try_from(in_a_hurry.saturating_sub(1)).unwrap_or(GATHER);
                let gather = length * others.min(GATHER);
                state.rests.hurry = Some(now + gather.min(LONGEST_HURRY));
                state.health.good = Some(now);
            }
            Err(error) => {
                let pause = state.back_off.failed();
                state.rests = Rests {
                    polls: Some(now + pause),
                    hurry: Some(now + pause.min(LONGEST_HURRY)),
                };
                state.health.bad = Some((now, Arc::clone(error)));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frees the pilot's seat when a flight panics, so that the next request finds it empty.
struct Seat<'a>(&'a Flights);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = self.0.lock();
            state.flying = false;
            state.requests.clear();
        }
    }
}

impl Rests {
    /// Returns when a request flies.
    fn departure(self, urgency: Urgency) -> Instant {
        let now = Instant::now();
        match urgency {
            Urgency::Now => self.hurry.map_or(now, |rest| rest.max(now)),
            Urgency::Poll(due) => self.polls.map_or(due, |rest| rest.max(due)),
        }
    }
}

#[cfg(test)]
mod tests;
