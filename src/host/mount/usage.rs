//! The usage of a volume, read so that a device that hangs blocks no other volume.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::StatVfs;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::telemetry::BlockingThread;

/// What a file system holds and could hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Its size in bytes, without its own metadata.
    pub total_bytes: u64,
    /// The space in use, in bytes.
    pub used_bytes: u64,
    /// The space that users other than root may still write, in bytes.
    pub available_bytes: u64,
    /// The number of files it can hold.
    pub total_inodes: u64,
    /// The number of files it holds.
    pub used_inodes: u64,
    /// The number of files it can still create.
    pub free_inodes: u64,
}

impl From<StatVfs> for Usage {
    fn from(status: StatVfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(status.f_frsize);
        Usage {
            total_bytes: bytes(status.f_blocks),
            used_bytes: bytes(status.f_blocks.saturating_sub(status.f_bfree)),
            available_bytes: bytes(status.f_bavail),
            total_inodes: status.f_files,
            used_inodes: status.f_files.saturating_sub(status.f_ffree),
            free_inodes: status.f_ffree,
        }
    }
}

/// Why the usage is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum UsageError {
    /// The file system does not answer.
    #[error("the file system at {} has not answered for {} s; its device may hang", .path.display(), .since.as_secs())]
    Hung {
        /// The path that was asked for.
        path: PathBuf,
        /// How long the question has been waiting for its answer.
        since: Duration,
    },
    /// The file system answered with an error.
    #[error("cannot get the usage of {}", .path.display())]
    Failed {
        /// The path that was asked for.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: Arc<io::Error>,
    },
}

/// What the usage of a file system is read through.
///
/// A thread that waits for the file system keeps the mount busy, so it is best to use a mount that stays.
#[derive(Debug)]
pub(crate) enum ProbeVia {
    /// A descriptor on some mount of it.
    Root(OwnedFd),
    /// The path itself.
    Path,
}

type Answer = Result<Usage, Arc<io::Error>>;
type Ask = dyn Fn(&Path, &ProbeVia) -> io::Result<Usage> + Send + Sync;

/// Asks file systems for their usage, with at most one question under way for each dataset.
#[derive(Clone)]
pub(crate) struct UsageProbe {
    ask: Arc<Ask>,
    questions: Arc<Mutex<HashMap<Uuid, Question>>>,
}

/// A question whose answer has not come yet.
#[derive(Clone)]
struct Question {
    path: PathBuf,
    asked: Instant,
    answer: watch::Receiver<Option<Answer>>,
}

impl std::fmt::Debug for UsageProbe {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("UsageProbe").finish_non_exhaustive()
    }
}

impl Default for UsageProbe {
    fn default() -> Self {
        UsageProbe::asking(|path, via| {
            Ok(match via {
                ProbeVia::Root(root) => rustix::fs::fstatvfs(root)?,
                ProbeVia::Path => rustix::fs::statvfs(path)?,
            }
            .into())
        })
    }
}

impl UsageProbe {
    fn asking(ask: impl Fn(&Path, &ProbeVia) -> io::Result<Usage> + Send + Sync + 'static) -> UsageProbe {
        UsageProbe {
            ask: Arc::new(ask),
            questions: Arc::default(),
        }
    }

    /// Returns the usage of a dataset mounted at a path, within the given time.
    ///
    /// While a question hangs, later ones for the same dataset wait for its answer instead of hanging too: all paths
    /// of a dataset show the same file system.
    pub(crate) async fn usage(
        &self,
        dataset_id: Uuid,
        path: &Path,
        via: ProbeVia,
        within: Duration,
    ) -> Result<Usage, UsageError> {
        let mut question = self
            .question(dataset_id, path, via)
            .map_err(|source| usage_error(path, Arc::new(source)))?;
        let answered = tokio::time::timeout(within, question.answer.wait_for(Option::is_some)).await;
        match answered {
            Ok(Ok(answer)) => match &*answer {
                Some(Ok(usage)) => Ok(*usage),
                Some(Err(error)) => Err(usage_error(path, error.clone())),
                None => Err(usage_error(path, Arc::new(io::ErrorKind::Interrupted.into()))),
            },
            Ok(Err(_)) => Err(usage_error(
                path,
                Arc::new(io::Error::other("the thread that asked has ended")),
            )),
            Err(_) => Err(UsageError::Hung {
                path: path.to_owned(),
                since: question.asked.elapsed(),
            }),
        }
    }

    /// Returns the datasets whose file system has not answered for that long, each with the error that says so.
    pub(crate) fn not_answering(&self, for_at_least: Duration) -> BTreeMap<Uuid, UsageError> {
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        let hung = questions.iter().map(|(dataset, question)| {
            let since = question.asked.elapsed();
            let path = question.path.clone();
            (*dataset, since, UsageError::Hung { path, since })
        });
        hung.filter(|(_, since, _)| *since >= for_at_least)
            .map(|(dataset, _, error)| (dataset, error))
            .collect()
    }

    /// Joins the question under way for a dataset, or asks a new one.
    fn question(&self, dataset_id: Uuid, path: &Path, via: ProbeVia) -> io::Result<Question> {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        // A question whose thread has ended has failed.
        if let Some(question) = questions
            .get(&dataset_id)
            .filter(|question| question.answer.has_changed().is_ok())
        {
            return Ok(question.clone());
        }
        let (answered, answer) = watch::channel(None);
        let at = path.to_owned();
        let (ask, path, asked) = (
            Arc::clone(&self.ask),
            path.to_owned(),
            Arc::clone(&self.questions),
        );
        // A thread of its own, because the runtime would wait for one of its blocking threads when it stops.
        std::thread::Builder::new()
            .name("usage".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || {
                let _counted = BlockingThread::enter();
                let usage = ask(&path, &via).map_err(Arc::new);
                drop(via);
                asked
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&dataset_id);
                answered.send_replace(Some(usage));
            })?;
        let question = Question {
            path: at,
            asked: Instant::now(),
            answer,
        };
        questions.insert(dataset_id, question.clone());
        Ok(question)
    }
}

fn usage_error(path: &Path, source: Arc<io::Error>) -> UsageError {
    UsageError::Failed {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    const WITHIN: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn the_usage_of_a_real_file_system_adds_up() {
        let usage = UsageProbe::default()
            .usage(Uuid::new_v4(), Path::new("/"), ProbeVia::Path, LONG)
            .await
            .unwrap();
        assert!(
            usage.total_bytes > 0 && usage.used_bytes + usage.available_bytes <= usage.total_bytes,
            "{usage:?}"
        );
        assert_eq!(usage.used_inodes + usage.free_inodes, usage.total_inodes);
    }

    #[tokio::test]
    async fn a_missing_path_is_an_error_with_its_cause() {
        let error = UsageProbe::default()
            .usage(Uuid::new_v4(), Path::new("/missing"), ProbeVia::Path, LONG)
            .await
            .unwrap_err();
        let UsageError::Failed { source, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_hanging_device_holds_one_thread_for_all_callers_and_recovers() {
        let (release, hang) = mpsc::channel::<()>();
        let (hang, asked) = (Mutex::new(hang), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&asked);
        let probe = UsageProbe::asking(move |path, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            hang.lock().unwrap().recv().unwrap();
            Ok(rustix::fs::statvfs(path)?.into())
        });
        let dataset_id = Uuid::new_v4();
        for _ in 0..3 {
            let asked = probe.usage(dataset_id, Path::new("/"), ProbeVia::Path, WITHIN);
            let error = asked.await.unwrap_err();
            assert!(matches!(error, UsageError::Hung { .. }), "{error}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);

        release.send(()).unwrap();
        release.send(()).unwrap();
        let asked = probe.usage(dataset_id, Path::new("/"), ProbeVia::Path, LONG);
        asked.await.unwrap();
    }

    #[tokio::test]
    async fn one_hanging_device_does_not_delay_another() {
        let (_never, hang) = mpsc::channel::<()>();
        let hang = Mutex::new(hang);
        let probe = UsageProbe::asking(move |path, _| {
            if path == Path::new("/proc") {
                let _ended = hang.lock().unwrap().recv();
            }
            Ok(rustix::fs::statvfs(path)?.into())
        });
        let hanging = probe.usage(Uuid::new_v4(), Path::new("/proc"), ProbeVia::Path, WITHIN);
        assert!(hanging.await.is_err());
        let other = probe.usage(Uuid::new_v4(), Path::new("/"), ProbeVia::Path, LONG);
        other.await.unwrap();
    }
}
