//! The log of a test.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, Once};

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

thread_local! {
    static LOG: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// The lines that the plugin logs on one thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Records the events of this thread as long as the guard lives. What is spawned runs on others.
    pub(crate) fn begin() -> (Self, Logging) {
        install();
        let log = Self::default();
        LOG.set(Some(log.clone()));
        (log, Logging(PhantomData))
    }

    pub(crate) fn lines_with(&self, words: &str) -> Vec<String> {
        let log = self.0.lock().unwrap();
        let text = String::from_utf8_lossy(&log);
        text.lines()
            .filter(|line| line.contains(words))
            .map(str::to_owned)
            .collect()
    }
}

/// Ends the log of this thread when it is dropped, which must be on the same thread.
pub(crate) struct Logging(PhantomData<*const ()>);

impl Drop for Logging {
    fn drop(&mut self) {
        LOG.set(None);
    }
}

/// Writes events to the log of the thread that emits them, if it has one.
///
/// All tests share one subscriber, which is installed before they serve anything: the process caches whether an event
/// is enabled, and an event that a thread emitted first without a subscriber would stay disabled for all of them.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let wanted = Targets::new().with_target("flocker_csi", Level::DEBUG);
        let lines = fmt::layer()
            .with_ansi(false)
            .with_writer(ThreadLog)
            .with_filter(wanted);
        registry().with(lines).init();
    });
}

#[derive(Clone, Copy)]
struct ThreadLog;

impl io::Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow(|log| {
            if let Some(Log(lines)) = log {
                lines.lock().unwrap().extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for ThreadLog {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}
