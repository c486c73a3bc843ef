//! Waiting for the mount table to change, without a timer.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

use host_fs::mount::{MountEvents, wait_readable};
use host_fs::mount::{MountTable, TableError};

/// The shortest time between two readings, so that a storm of mounts does not keep a processor busy.
const MIN_GAP: Duration = Duration::from_millis(10);

/// Why changes of the mount table cannot be followed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WatchError {
    /// The table cannot be waited for.
    #[error("cannot wait for changes of the mount table")]
    Wait(#[source] Arc<io::Error>),
    /// The table could not be read.
    #[error("cannot follow the mount table")]
    Table(#[source] Arc<TableError>),
    /// The thread that reads has ended.
    #[error("the mount table is no longer followed")]
    Stopped,
}

type Seen = Option<Result<Arc<MountTable>, WatchError>>;

/// Follows the mount table while there are waiters.
///
/// The table is read once per change, for any number of waiters.
#[derive(Debug, Clone, Default)]
pub(crate) struct MountWatch {
    follower: Arc<Mutex<Weak<Follower>>>,
}

/// A waiter's view of the mount table.
#[derive(Debug)]
pub(crate) struct MountChanges {
    seen: watch::Receiver<Seen>,
    _follower: Arc<Follower>,
}

/// The thread that reads; it ends when this end of its socket is closed.
#[derive(Debug)]
struct Follower {
    seen: watch::Receiver<Seen>,
    _stop: UnixStream,
}

impl MountWatch {
    /// Begins to wait for changes in the calling thread's mount namespace. No change after this call is missed.
    pub(crate) fn subscribe(&self) -> Result<MountChanges, WatchError> {
        let mut current = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let follower = match current.upgrade() {
            Some(follower) => follower,
            None => Arc::new(Follower::start().map_err(|error| WatchError::Wait(Arc::new(error)))?),
        };
        *current = Arc::downgrade(&follower);
        let mut seen = follower.seen.clone();
        seen.mark_changed();
        Ok(MountChanges {
            seen,
            _follower: follower,
        })
    }
}

impl MountChanges {
    /// Returns the mount table: the first time as it is, then each time it has changed again.
    ///
    /// Changes in quick succession are reported as one. Dropping the future loses no change.
    pub(crate) async fn next(&mut self) -> Result<Arc<MountTable>, WatchError> {
        loop {
            self.seen.changed().await.map_err(|_| WatchError::Stopped)?;
            if let Some(seen) = &*self.seen.borrow_and_update() {
                return seen.clone();
            }
        }
    }
}

impl Follower {
    fn start() -> io::Result<Follower> {
        // Opened here, so that it reports every change after this call.
        let events = MountEvents::of_this_thread()?;
        let (stop, stopped) = UnixStream::pair()?;
        let (sender, seen) = watch::channel(None);
        let body = move || {
            if let Err(error) = follow(&events, &stopped, &sender) {
                sender.send_replace(Some(Err(WatchError::Wait(Arc::new(error)))));
            }
        };
        std::thread::Builder::new()
            .name("mount-table".to_owned())
            .spawn(body)?;
        Ok(Follower { seen, _stop: stop })
    }
}

/// Reads the table now and whenever it has changed, until the other end of the socket is closed.
fn follow(events: &MountEvents, stopped: &UnixStream, sender: &watch::Sender<Seen>) -> io::Result<()> {
    loop {
        let table = MountTable::read().map(Arc::new);
        sender.send_replace(Some(table.map_err(|error| WatchError::Table(Arc::new(error)))));
        if !events.changed_before(stopped)? || wait_readable(stopped, MIN_GAP)? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host_fs::mount::testing::{in_own_namespace, tmpfs};
    use std::path::Path;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn with_runtime<F: Future<Output = ()>>(body: impl FnOnce(std::path::PathBuf) -> F + Send + 'static) {
        in_own_namespace(|scratch| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(body(scratch.to_owned()));
        });
    }

    /// Returns whether a thread of this namespace still reads the table.
    fn follows() -> bool {
        let namespace = |task: &Path| std::fs::read_link(task.join("ns/mnt")).ok();
        let own = namespace(Path::new("/proc/thread-self"));
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .flatten()
            .any(|task| {
                let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
                name.trim_end() == "mount-table" && namespace(&task.path()) == own
            })
    }

    async fn wait_for(changes: &mut MountChanges, point: &Path) {
        let mounted = async { while changes.next().await.unwrap().layers_at(point).is_empty() {} };
        tokio::time::timeout(PATIENCE, mounted)
            .await
            .expect("the change was not seen");
    }

    #[test]
    fn the_first_table_comes_at_once() {
        with_runtime(async |_| {
            let mut changes = MountWatch::default().subscribe().unwrap();
            assert!(
                tokio::time::timeout(PATIENCE, changes.next())
                    .await
                    .unwrap()
                    .is_ok()
            );
        });
    }

    #[test]
    fn a_mount_made_while_waiting_is_seen() {
        with_runtime(async |scratch| {
            let mut changes = MountWatch::default().subscribe().unwrap();
            changes.next().await.unwrap();
            let point = scratch.join("late");
            let mounting = tokio::task::spawn_blocking({
                let point = point.clone();
                move || tmpfs(&point)
            });
            wait_for(&mut changes, &point).await;
            mounting.await.unwrap();
        });
    }

    #[test]
    fn waiters_that_come_later_join_and_the_last_one_ends_the_following() {
        with_runtime(async |scratch| {
            let watch = MountWatch::default();
            let mut first = watch.subscribe().unwrap();
            first.next().await.unwrap();
            let mut second = watch.subscribe().unwrap();
            assert_eq!(watch.follower.lock().unwrap().strong_count(), 2);
            tmpfs(&scratch.join("a"));
            wait_for(&mut second, &scratch.join("a")).await;
            wait_for(&mut first, &scratch.join("a")).await;

            drop((first, second));
            assert_eq!(watch.follower.lock().unwrap().strong_count(), 0);
            let ended = async {
                while follows() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, ended)
                .await
                .expect("the thread goes on without waiters");

            let mut third = watch.subscribe().unwrap();
            wait_for(&mut third, &scratch.join("a")).await;
        });
    }

    #[test]
    fn a_storm_of_changes_ends_in_the_newest_table() {
        with_runtime(async |scratch| {
            let mut changes = MountWatch::default().subscribe().unwrap();
            for number in 0..100 {
                tmpfs(&scratch.join(number.to_string()));
            }
            wait_for(&mut changes, &scratch.join("99")).await;
        });
    }
}
