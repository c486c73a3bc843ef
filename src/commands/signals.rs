//! The signals that stop the process.

use std::io;

use host_fs::{Links, read_regular};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::failure::Failure;

/// What the kernel shows of this process.
const STATUS: &str = "/proc/self/status";
const LARGEST_STATUS: u64 = 64 << 10;

/// SIGTERM, SIGINT and SIGHUP. From its creation on, none of them kills the process.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal or the session of the process has ended. `None` where who started the process ignores that, as nohup
    /// does.
    hangup: Option<Signal>,
}

impl StopSignals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// The kernel refuses a handler.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = || -> io::Result<Self> {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hangup: if is_ignored(SignalKind::hangup()) {
                    None
                } else {
                    Some(signal(SignalKind::hangup())?)
                },
            })
        };
        listen().map_err(|error| Failure::context("listen for signals", &error))
    }

    /// Waits for the next signal and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = received(self.hangup.as_mut()) => "SIGHUP",
        }
    }

    /// Runs `start` unless a signal comes first, and returns its name then. What `start` had begun ends as in a crash.
    pub(crate) async fn unless_stopped<T>(
        &mut self,
        start: impl Future<Output = T>,
    ) -> Result<T, &'static str> {
        tokio::select! {
            biased;
            started = start => Ok(started),
            signal = self.next() => {
                tracing::info!("Stopping on {signal}, before the start was complete");
                Err(signal)
            }
        }
    }
}

async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether the process was started with a signal ignored.
fn is_ignored(signal: SignalKind) -> bool {
    let status = read_regular(STATUS.as_ref(), LARGEST_STATUS, Links::Follow).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal.as_raw_value() - 1) & 1 == 1)
}
