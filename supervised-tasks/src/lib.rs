//! Background tasks that are restarted after a panic.
//!
//! A task of tokio that panics ends, and unless its handle is awaited no other part of the program notices: certificates are
//! no longer loaded, a lease is never released. Every task that lasts is therefore started by a [`Supervisor`], which logs
//! and reports the panic and starts the work again after a back-off.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// The pause before the first restart; each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Work that has run for this long is healthy: the next panic begins with the first pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Starts tasks and restarts those that panic. Clones stop together and report to the same function.
#[derive(Clone)]
pub struct Supervisor {
    stop: CancellationToken,
    on_panic: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = &mut f.debug_struct("Supervisor");
        fields.field("stop", &self.stop).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// Makes a supervisor whose tasks end with `stop`, and which calls `on_panic` for each panic of one of them.
    pub fn new(stop: CancellationToken, on_panic: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            stop,
            on_panic: Arc::new(on_panic),
        }
    }

    /// Returns the token that ends the tasks.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs what `begin` returns in a task of its own, which ends where it is when the token is cancelled.
    ///
    /// `name` completes the sentence "the background task … panicked".
    pub fn spawn<F>(&self, name: &'static str, begin: impl FnMut() -> F + Send + 'static) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, supervised) = (self.stop.clone(), self.clone().supervise(name, begin));
        tokio::spawn(async move {
            stop.run_until_cancelled_owned(supervised).await;
        })
    }

    /// As [`Self::spawn`], for work that has to reach its own end: it is not interrupted, and only not restarted after the
    /// token is cancelled.
    pub fn spawn_to_end<F>(
        &self,
        name: &'static str,
        begin: impl FnMut() -> F + Send + 'static,
    ) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(self.clone().supervise(name, begin))
    }

    /// Runs what `begin` returns until it ends without a panic, or panics after the token was cancelled.
    ///
    /// For a caller that spawns it itself, such as into a `JoinSet`.
    pub async fn supervise<F>(self, name: &'static str, mut begin: impl FnMut() -> F)
    where
        F: Future<Output = ()>,
    {
        let mut pauses = pauses();
        loop {
            let last_start = Instant::now();
            let work = AssertUnwindSafe(async { begin().await });
            if work.catch_unwind().await.is_ok() {
                return;
            }
            (self.on_panic)();
            if last_start.elapsed() >= HEALTHY_AFTER {
                pauses = self::pauses();
            }
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            // The text of the panic is in the log already: the panic hook has it, with its place in the code.
            tracing::error!("The background task \"{name}\" panicked; it is started again in {pause:?}");
            if self.stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
        }
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn supervisor() -> (Supervisor, Arc<AtomicU32>) {
        let panics = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&panics);
        let count = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        (Supervisor::new(CancellationToken::new(), count), panics)
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_is_started_again_until_it_ends() {
        let (supervisor, panics) = supervisor();
        let mut begun = 0;
        let ended = supervisor.spawn("testing", move || {
            begun += 1;
            let number = begun;
            async move {
                tokio::task::yield_now().await;
                assert!(number == 4, "attempt {number}");
            }
        });
        ended.await.unwrap();
        assert_eq!(panics.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_before_the_first_await_is_survived_too() {
        let (supervisor, panics) = supervisor();
        let counted = Arc::clone(&panics);
        let ended = supervisor.spawn("testing", move || {
            assert!(counted.load(Ordering::SeqCst) == 1, "it begins badly");
            async {}
        });
        ended.await.unwrap();
        assert_eq!(panics.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn restarts_are_slowed_down_and_end_with_the_token() {
        let (supervisor, panics) = supervisor();
        let running = supervisor.spawn_to_end("testing", || async { panic!("always") });
        sleep(Duration::from_secs(3600)).await;
        let panicked = panics.load(Ordering::SeqCst);
        assert!((100..150).contains(&panicked), "{panicked} panics in an hour");
        supervisor.stop().cancel();
        running.await.unwrap();
        assert_eq!(panics.load(Ordering::SeqCst), panicked);
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_where_it_is_with_the_token_unless_it_has_to_reach_its_end() {
        let (supervisor, _) = supervisor();
        let interrupted = supervisor.spawn("testing", std::future::pending);
        let done = Arc::new(AtomicU32::new(0));
        let finished = Arc::clone(&done);
        let to_end = supervisor.spawn_to_end("testing", move || {
            let finished = Arc::clone(&finished);
            async move {
                sleep(Duration::from_secs(5)).await;
                finished.fetch_add(1, Ordering::SeqCst);
            }
        });
        sleep(Duration::from_secs(1)).await;
        supervisor.stop().cancel();
        interrupted.await.unwrap();
        to_end.await.unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }
}
