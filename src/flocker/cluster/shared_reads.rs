//! Single flight: concurrent callers that need Flocker's lists share one read.
//!
//! A request is answered by the first read that starts after it was made and that fetches all its lists. One task, the
//! fetcher, runs the reads one after the other. It ends when no request waits, so an idle process reads no list.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::ExponentialBackoff;
use futures::future::BoxFuture;
use supervised_tasks::Supervisor;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::back_off::failure_pauses;
use super::health::{Health, Turn};
use super::lists::Lists;
use super::snapshot::Snapshot;
use crate::error::Error;
use crate::telemetry::Trace;

/// The result of a read, shared by every request that it answers.
pub(super) type Outcome = Result<Arc<Snapshot>, Arc<flocker_client::Error>>;

/// Receives the outcome of every read, in their order, whether or not its callers still wait.
pub(super) type Observer = Box<dyn Fn(&Outcome) + Send + Sync>;

/// Reads lists from Flocker.
type Fetch = dyn Fn(Lists) -> BoxFuture<'static, Result<Snapshot, flocker_client::Error>> + Send + Sync;

/// Polls that are due within this time of each other share a read.
const COALESCE: Duration = Duration::from_millis(100);
/// Two polls are at least this many times the duration of the last read apart: one Python core serves all requests.
const POLL_PAUSE: u32 = 10;
/// A list that takes at most this long is one of a control service that has few datasets and nothing else to do. A real one
/// needs three times as long for an empty list.
const CHEAP_LIST: Duration = Duration::from_millis(5);
/// How many lists a step of a volume needs at most, for which the first poll makes place where they are not cheap.
const SEVERAL_LISTS: u32 = 3;
/// How many reads show how long Flocker takes for a list at present.
const LAST_READS: usize = 3;
/// After a read with several urgent requests, the next ones wait for its duration times their number less one, up to this
/// many times: concurrent callers gather, and leave Flocker most of its time. One caller alone never waits.
const GATHER: u32 = 3;
/// An urgent request waits at most this long, for others to gather or after a read that failed.
const LONGEST_URGENT_PAUSE: Duration = Duration::from_secs(1);

/// When a request has to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// At once; a little later with concurrent callers, and when the control service is down.
    Now,
    /// At that moment, or with an earlier read; later when the control service is slow or down.
    Poll(Instant),
}

struct Request {
    lists: Lists,
    urgency: Urgency,
    /// The call that waits, if its trace is known.
    trace: Trace,
    reply: oneshot::Sender<Outcome>,
}

#[derive(Default)]
struct State {
    waiters: Vec<Request>,
    running: bool,
    pauses: Pauses,
    /// The pauses after failures, from the first failure to the next success.
    back_off: Option<ExponentialBackoff>,
    health: Health,
    /// How long a list took in the last reads.
    lists_took: VecDeque<Duration>,
    /// When the last good read of each list began.
    read_at: Vec<(Lists, Instant)>,
}

/// How early Flocker may be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// After this time, whatever is waited for: what the lists take is a tenth of it.
    Cheap(Duration),
    /// After this time, in which several lists take a tenth, and not before what is waited for can have happened.
    Sparing(Duration),
}

impl Pace {
    /// Makes the pace of a Flocker whose lists took so long. One list alone may have taken longer because the connection
    /// was made for it.
    fn of(lists_took: &VecDeque<Duration>) -> Self {
        let shortest = lists_took.iter().min().copied().unwrap_or_default();
        if shortest <= CHEAP_LIST {
            return Self::Cheap(shortest * POLL_PAUSE);
        }
        let longest = lists_took.iter().max().copied().unwrap_or_default();
        Self::Sparing(longest * SEVERAL_LISTS * POLL_PAUSE)
    }

    /// Returns the wait before the first poll.
    pub(super) fn first_wait(self) -> Duration {
        match self {
            Self::Cheap(wait) | Self::Sparing(wait) => wait,
        }
    }

    /// Returns the wait before the first poll for what cannot have happened before `known`.
    pub(super) fn first_wait_for(self, known: Duration) -> Duration {
        match self {
            Self::Cheap(wait) => wait,
            Self::Sparing(wait) => wait.max(known),
        }
    }
}

/// Until when no read starts, after the last one.
#[derive(Clone, Copy, Debug, Default)]
struct Pauses {
    polls: Option<Instant>,
    urgent: Option<Instant>,
}

/// The reads of this process.
pub(super) struct SharedReads {
    fetch: Box<Fetch>,
    observer: Observer,
    tasks: Supervisor,
    state: Mutex<State>,
    wake: Notify,
    logs_outages: AtomicBool,
}

impl SharedReads {
    pub(super) fn new(
        fetch: impl Fn(Lists) -> BoxFuture<'static, Result<Snapshot, flocker_client::Error>>
        + Send
        + Sync
        + 'static,
        observer: Observer,
        tasks: Supervisor,
    ) -> Arc<Self> {
        Arc::new(Self {
            fetch: Box::new(fetch),
            observer,
            tasks,
            state: Mutex::default(),
            wake: Notify::new(),
            logs_outages: AtomicBool::new(false),
        })
    }

    pub(super) fn health(&self) -> Health {
        self.lock().health.clone()
    }

    /// Logs every outage from now on. A process that only reads once reports its error instead.
    pub(super) fn log_outages(&self) {
        self.logs_outages.store(true, Ordering::Relaxed);
    }

    fn log(&self, turn: Option<Turn>) {
        if self.logs_outages.load(Ordering::Relaxed) {
            turn.into_iter().for_each(Turn::log);
        }
    }

    /// Records that Flocker answered a request that is no read of lists, or did not.
    pub(super) fn note(&self, answer: Result<(), String>) {
        let now = Instant::now();
        let turn = {
            let health = &mut self.lock().health;
            match answer {
                Ok(()) => health.answered(now),
                Err(problem) => health.failed(now, problem),
            }
        };
        self.log(turn);
    }

    /// Returns how many callers wait for a read that has not begun.
    pub(super) fn waiting(&self) -> usize {
        let state = self.lock();
        state
            .waiters
            .iter()
            .filter(|request| !request.reply.is_closed())
            .count()
    }

    /// Returns how long ago the last good read of each list began, by the name of the list.
    pub(super) fn list_ages(&self) -> Vec<(&'static str, Duration)> {
        let state = self.lock();
        let read = state.read_at.iter();
        read.map(|(list, began)| (list.name(), began.elapsed())).collect()
    }

    /// Returns how early Flocker may be polled, by what a list has taken lately.
    pub(super) fn pace(&self) -> Pace {
        Pace::of(&self.lock().lists_took)
    }

    /// Waits for the next read that `urgency` allows and that starts after this call.
    pub(super) async fn join(self: &Arc<Self>, lists: Lists, urgency: Urgency) -> Outcome {
        loop {
            let (reply, outcome) = oneshot::channel();
            let start = {
                let mut state = self.lock();
                state.waiters.push(Request {
                    lists,
                    urgency,
                    trace: Trace::current(),
                    reply,
                });
                !std::mem::replace(&mut state.running, true)
            };
            if start {
                let reads = Arc::clone(self);
                self.tasks
                    .spawn_to_end("reading lists of Flocker", move || Arc::clone(&reads).run());
            } else {
                self.wake.notify_one();
            }
            // A fetcher that panicked has dropped the reply; it is started again, and reads for the next request.
            if let Ok(outcome) = outcome.await {
                return outcome;
            }
        }
    }

    /// The fetcher: reads for the waiters until there is none.
    async fn run(self: Arc<Self>) {
        while let Some(start) = self.next_start() {
            tokio::select! {
                () = tokio::time::sleep_until(start) => {}
                () = self.wake.notified() => continue,
            }
            let Some(lists) = self.due_lists() else { continue };
            let began = Instant::now();
            let answered = self.take_waiters(lists);
            let urgent = answered
                .iter()
                .filter(|request| request.urgency == Urgency::Now)
                .count();
            let polled = urgent < answered.len();
            // In the trace of the first of them that has one: a request has one place in Flocker's log.
            let mut traces = answered.iter().map(|request| &request.trace);
            let read = match traces.find(|trace| trace.is_some()) {
                Some(trace) => trace.around((self.fetch)(lists)).await,
                None => (self.fetch)(lists).await,
            };
            let outcome = read.map(Arc::new).map_err(Arc::new);
            self.record_outcome((began, lists), &outcome, polled, urgent);
            (self.observer)(&outcome);
            for request in answered {
                // A caller that stopped waiting has dropped the other end.
                request.reply.send(outcome.clone()).ok();
            }
        }
    }

    /// Returns when the next read has to start. Without waiters there is none, and the fetcher ends.
    fn next_start(&self) -> Option<Instant> {
        let mut state = self.lock();
        state.waiters.retain(|request| !request.reply.is_closed());
        let pauses = state.pauses;
        let start = state
            .waiters
            .iter()
            .map(|request| pauses.start_of(request.urgency))
            .min();
        state.running = start.is_some();
        start
    }

    /// Returns the lists of the requests that are due, or nothing when none is.
    fn due_lists(&self) -> Option<Lists> {
        let mut state = self.lock();
        // Callers may have stopped waiting while the fetcher slept.
        state.waiters.retain(|request| !request.reply.is_closed());
        let horizon = Instant::now() + COALESCE;
        state
            .waiters
            .iter()
            .filter(|request| state.pauses.start_of(request.urgency) <= horizon)
            .map(|request| request.lists)
            .reduce(|all, lists| all | lists)
    }

    /// Takes out every request that a read of `lists` answers, due or not.
    fn take_waiters(&self, lists: Lists) -> Vec<Request> {
        let mut state = self.lock();
        state
            .waiters
            .extract_if(.., |request| lists.contains(request.lists))
            .collect()
    }

    fn record_outcome(
        &self,
        (began, lists): (Instant, Lists),
        outcome: &Outcome,
        polled: bool,
        urgent: usize,
    ) {
        let now = Instant::now();
        let mut state = self.lock();
        let turn = match outcome {
            Ok(_) => {
                if state.back_off.take().is_some() {
                    state.pauses.polls = None;
                }
                let duration = now - began;
                state.lists_took.truncate(LAST_READS - 1);
                let count = u32::try_from(lists.iter().count()).unwrap_or(1).max(1);
                state.lists_took.push_front(duration / count);
                state.read_at.retain(|(list, _)| !lists.contains(*list));
                state.read_at.extend(lists.iter().map(|list| (list, began)));
                // A read without polls must not delay the next poll.
                if polled {
                    state.pauses.polls = Some(now + duration * POLL_PAUSE);
                }
                let others = u32::try_from(urgent.saturating_sub(1)).unwrap_or(GATHER);
                let gather = duration * others.min(GATHER);
                state.pauses.urgent = Some(now + gather.min(LONGEST_URGENT_PAUSE));
                state.health.answered(now)
            }
            Err(error) => {
                let mut back_off = state.back_off.take().unwrap_or_else(failure_pauses);
                let pause = back_off.next().unwrap_or_default();
                state.back_off = Some(back_off);
                state.pauses = Pauses {
                    polls: Some(now + pause),
                    urgent: Some(now + pause.min(LONGEST_URGENT_PAUSE)),
                };
                let problem = Error::flocker("read from Flocker", Arc::clone(error)).chain();
                state.health.failed(now, problem)
            }
        };
        drop(state);
        self.log(turn);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pauses {
    /// Returns when a request is read.
    fn start_of(self, urgency: Urgency) -> Instant {
        let now = Instant::now();
        match urgency {
            Urgency::Now => self.urgent.map_or(now, |pause| pause.max(now)),
            Urgency::Poll(due) => self.polls.map_or(due, |pause| pause.max(due)),
        }
    }
}

#[cfg(test)]
mod tests;
