//! Work on the paths of requests, bounded to a few threads for each mount that such a path leads through.
//!
//! A file system that hangs blocks every thread that looks up a path in it. Without a bound, calls about it would block
//! all threads of the runtime, and calls about all other volumes would wait. A call therefore acquires a permit before
//! a thread looks up its path, and waits without a thread while too many are at work behind the same mount.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host_fs::mount::CachedParent;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The maximum number of threads at work behind one mount. Each needs microseconds, unless the mount hangs.
const THREADS: usize = 8;

/// The time after which work on a file system counts as hanging.
pub(crate) const HANGS: Duration = Duration::from_secs(10);

/// The bound on path lookups. Clones share one bound.
#[derive(Clone, Debug, Default)]
pub struct PathGate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    mounts: HashMap<Option<u64>, Arc<Semaphore>>,
    /// By number, so the oldest comes first.
    working: BTreeMap<u64, Work>,
    next: u64,
}

#[derive(Debug)]
struct Work {
    path: PathBuf,
    since: Instant,
}

/// The right to look up the paths of one call; it moves with the work into its thread, and ends with that.
#[derive(Debug)]
pub(crate) struct PathPermit {
    gate: PathGate,
    /// The number of its work, after that has begun.
    number: Option<u64>,
    mounts: Vec<OwnedSemaphorePermit>,
    /// The directories above the paths, the last path first, as they were a moment ago.
    parents: Vec<CachedParent>,
}

impl PathGate {
    /// Waits until a thread may look up these paths.
    ///
    /// Dropping the future releases all that it holds.
    pub(crate) async fn enter(&self, paths: &[&Path]) -> PathPermit {
        let parents = paths.iter().map(|path| CachedParent::of(path)).collect();
        self.enter_from(paths, parents).await
    }

    /// As [`Self::enter`], with what was found of the directories above the paths, each at the place of its path.
    pub(crate) async fn enter_from(&self, paths: &[&Path], mut parents: Vec<CachedParent>) -> PathPermit {
        parents.reverse();
        let mut mounts: Vec<_> = parents.iter().map(CachedParent::mount).collect();
        // All calls use one order, so that two calls never wait for each other.
        mounts.sort_unstable();
        mounts.dedup();
        let mut permit = PathPermit {
            gate: self.clone(),
            number: None,
            mounts: Vec::with_capacity(mounts.len()),
            parents,
        };
        for mount in mounts {
            let threads = self.threads(mount);
            let entered = if let Ok(entered) = Arc::clone(&threads).try_acquire_owned() {
                Ok(entered)
            } else {
                // What is opened now is not what the path leads to when the wait ends, and keeps a mount busy.
                permit.parents.clear();
                threads.acquire_owned().await
            };
            // The semaphore is never closed, so every wait for it ends with a permit.
            if let Ok(entered) = entered {
                permit.mounts.push(entered);
            }
        }
        let path = paths.first().copied().unwrap_or(Path::new("/")).to_owned();
        let since = Instant::now();
        let mut state = self.lock();
        state.next += 1;
        permit.number = Some(state.next);
        let number = state.next;
        state.working.insert(number, Work { path, since });
        drop(state);
        permit
    }

    /// Returns a sentence about the oldest work that hangs; `None` when none does.
    pub fn obstacle(&self) -> Option<String> {
        let state = self.lock();
        let hanging = state
            .working
            .values()
            .filter(|work| work.since.elapsed() >= HANGS);
        let count = hanging.clone().count();
        let oldest = hanging.min_by_key(|work| work.since)?;
        Some(format!(
            "{count} calls have waited for a file system on the way to their paths, the oldest for {} s for {}; other \
             volumes are served",
            oldest.since.elapsed().as_secs(),
            oldest.path.display()
        ))
    }

    fn threads(&self, mount: Option<u64>) -> Arc<Semaphore> {
        let mut state = self.lock();
        let threads = state.mounts.entry(mount);
        Arc::clone(threads.or_insert_with(|| Arc::new(Semaphore::new(THREADS))))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PathPermit {
    /// Returns the directory above the first path that was not asked for yet, if the kernel had it in memory.
    pub(crate) fn next_parent(&mut self) -> Option<CachedParent> {
        self.parents.pop()
    }
}

impl Drop for PathPermit {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        if let Some(number) = self.number {
            state.working.remove(&number);
        }
        self.mounts.clear();
        // A clone is held, also through a permit, by each call that works or waits. Not only those of this permit: a call
        // that stopped waiting has left the one it waited for.
        state.mounts.retain(|_, threads| Arc::strong_count(threads) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_behind_one_mount_is_bounded_and_what_hangs_is_reported() {
        let gate = PathGate::default();
        let paths: Vec<_> = (0..=THREADS)
            .map(|number| PathBuf::from(format!("/one/{number}")))
            .collect();
        let one = || vec![CachedParent::behind(1)];
        let mut permits = Vec::new();
        for path in &paths[..THREADS] {
            permits.push(gate.enter_from(&[path], one()).await);
        }
        assert_eq!(gate.obstacle(), None);
        let last = [paths[THREADS].as_path()];
        let mut waiting = std::pin::pin!(gate.enter_from(&last, one()));
        assert!(futures::poll!(&mut waiting).is_pending());
        // Another mount has threads of its own.
        let elsewhere = gate
            .enter_from(&[Path::new("/other/1")], vec![CachedParent::behind(2)])
            .await;
        drop(elsewhere);
        tokio::time::advance(HANGS).await;
        let obstacle = gate.obstacle().unwrap();
        assert!(obstacle.starts_with("8 calls have waited"), "{obstacle}");
        assert!(obstacle.contains(&paths[0].display().to_string()), "{obstacle}");
        permits.pop();
        drop(waiting.await);
        // A caller that stops waiting when nothing else is behind the mount leaves nothing either.
        let more = gate.enter_from(&last, one()).await;
        let mut leaving = Box::pin(gate.enter_from(&last, one()));
        assert!(futures::poll!(&mut leaving).is_pending());
        permits.push(more);
        permits.clear();
        drop(leaving);
        assert_eq!(gate.obstacle(), None);
        assert!(
            gate.lock().mounts.is_empty(),
            "no entry is kept for a mount without work"
        );
    }

    #[tokio::test]
    async fn two_paths_behind_one_mount_are_one_work() {
        let root = tempfile::tempdir().unwrap();
        let gate = PathGate::default();
        let (one, two) = (root.path().join("one"), root.path().join("two"));
        let permit = gate.enter(&[&one, &two]).await;
        assert_eq!(permit.mounts.len(), 1);
    }
}
