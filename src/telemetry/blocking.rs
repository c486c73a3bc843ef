//! Work that blocks, on threads for such work, which are counted.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinHandle;

/// How many threads of this process carry out blocking work. They belong to the runtime, of which a process has one.
static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// Counts a thread for as long as it exists.
#[derive(Debug)]
pub(crate) struct BlockingThread(());

impl BlockingThread {
    /// Counts the calling thread.
    pub(crate) fn enter() -> Self {
        IN_USE.fetch_add(1, Ordering::Relaxed);
        Self(())
    }

    /// Returns how many threads are at work.
    pub(crate) fn in_use() -> usize {
        IN_USE.load(Ordering::Relaxed)
    }
}

impl Drop for BlockingThread {
    fn drop(&mut self) {
        IN_USE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// As [`tokio::task::spawn_blocking`], and counts the thread while it works.
#[allow(
    clippy::disallowed_methods,
    reason = "this is what is to be used in its place"
)]
pub(crate) fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(move || {
        let _counted = BlockingThread::enter();
        work()
    })
}
