//! Being asked to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::failure::Failure;

/// The signals that ask the process to stop: SIGTERM and SIGINT. From the moment this is made none of them ends it.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Begins to listen.
    ///
    /// # Errors
    /// The kernel refuses a handler.
    pub fn listen() -> Result<Self, Failure> {
        let listen = || -> io::Result<Self> {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            })
        };
        listen().map_err(|error| Failure::while_doing("listen for signals", &error))
    }

    /// Waits for the next signal and returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
