//! Logging.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{LogConfig, LogFormat};

/// Prints log lines to stderr from now on, in the format and at the level of `config`.
///
/// Only the first call in a process has an effect.
pub fn init(config: &LogConfig) {
    // The setting was checked when it was read.
    let filter = EnvFilter::builder().parse_lossy(&config.log);
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let installed = match config.log_format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // An earlier subscriber, as tests may have one, stays.
    installed.ok();
}
