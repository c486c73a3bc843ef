//! Logging.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use crate::config::{LogConfig, LogFormat};

/// Prints log lines to stderr from now on, in the format and at the level of `config`.
///
/// Only the first call in a process has an effect.
pub fn init(config: &LogConfig) {
    // The setting was checked when it was read. Not an `EnvFilter`: its regular expressions make a program that is a
    // megabyte larger.
    let levels: Targets = config.log.parse().unwrap_or_default();
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let lines = match config.log_format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let installed = registry().with(levels).with(lines).try_init();
    // An earlier subscriber, as tests may have one, stays.
    installed.ok();
}
