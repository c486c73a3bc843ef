//! What a blocking look at this machine found last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// The result of the last look; clones share it.
///
/// A look may hang in a file system, so it has a thread of its own, one at a time: a caller waits for it for a bounded time,
/// and while it hangs no other is begun.
#[derive(Debug)]
pub(crate) struct Latest<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    /// When the look began that has not ended yet.
    since: Option<Instant>,
    last: Option<T>,
}

impl<T> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            since: None,
            last: None,
        })))
    }
}

impl<T: Clone + Send + 'static> Latest<T> {
    /// Looks, unless the last look has not ended yet, and returns what was found last: what this look has found, if it ends
    /// within that time.
    pub(crate) async fn look(
        &self,
        within: Duration,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self.begin() {
            let ended = Ended(self.clone());
            let looking = super::spawn_blocking(move || {
                let ended = ended;
                let found = look();
                ended.0.lock().last = Some(found);
            });
            timeout(within, looking).await.ok();
        }
        self.last()
    }

    /// Returns what was found last; `None` before the first look has ended.
    pub(crate) fn last(&self) -> Option<T> {
        self.lock().last.clone()
    }

    /// Returns since when a look has not ended.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.lock().since
    }

    /// Notes that a look begins; `false` while another one has not ended.
    fn begin(&self) -> bool {
        let mut state = self.lock();
        let begins = state.since.is_none();
        state.since.get_or_insert_with(Instant::now);
        begins
    }
}

impl<T> Latest<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes the end of a look when it is dropped, also by a panic.
struct Ended<T>(Latest<T>);

impl<T> Drop for Ended<T> {
    fn drop(&mut self) {
        self.0.lock().since = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn a_look_that_hangs_is_the_only_one_and_what_was_found_before_it_stays() {
        let latest = Latest::default();
        assert_eq!(latest.look(LONG, || 1).await, Some(1));
        let (release, hang) = mpsc::channel::<()>();
        let hanging = latest.look(SHORT, move || {
            hang.recv().ok();
            2
        });
        assert_eq!(hanging.await, Some(1));
        assert!(latest.waits_since().is_some());
        assert_eq!(latest.look(LONG, || 3).await, Some(1), "no other look begins");
        release.send(()).unwrap();
        let deadline = Instant::now() + LONG;
        while latest.waits_since().is_some() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(SHORT).await;
        }
        assert_eq!(latest.last(), Some(2));
    }

    #[tokio::test]
    async fn after_a_panic_another_look_is_possible() {
        let latest = Latest::default();
        assert_eq!(latest.look(LONG, || panic!("a bug")).await, None::<u32>);
        assert_eq!(latest.look(LONG, || 1).await, Some(1));
    }
}
