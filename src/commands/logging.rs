//! Logging.

use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use std::time::SystemTime;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use super::stdout;
use crate::config::{LogConfig, LogFormat};

/// Prints log lines to stderr from now on, in the format and at the level of `config`. Panics are logged too.
///
/// A log that cannot be written stops nothing: see [`Output`](crate::telemetry::Output). Only the first call in a process
/// has an effect.
pub fn init(config: &LogConfig) {
    // The setting was checked when it was read. Not an `EnvFilter`: its regular expressions make a program that is a
    // megabyte larger.
    let levels: Targets = config.log.parse().unwrap_or_default();
    let output = stdout::stderr(match config.log_format {
        LogFormat::Text => lost_as_text,
        LogFormat::Json => lost_as_json,
    });
    let lines = fmt::layer()
        .with_writer(move || output)
        // It would be printed by a macro that panics when stderr cannot be written.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    let lines = match config.log_format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let installed = registry().with(levels).with(lines).try_init();
    // An earlier subscriber, as tests may have one, stays.
    if installed.is_ok() {
        // The hook of the standard library waits for a reader of stderr.
        panic::set_hook(Box::new(log_panic));
    }
}

/// Logs where a panic happened. A text that was put together at run time is left out: it may quote what a caller sent.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload().downcast_ref::<&'static str>();
    let place = panic.location().map(ToString::to_string);
    tracing::error!(
        panic.location = place.as_deref(),
        panic.thread = std::thread::current().name(),
        "A bug in flocker-csi: the code at {} panicked{}{}",
        place.as_deref().unwrap_or("an unknown place"),
        if text.is_some() { ": " } else { "" },
        text.copied().unwrap_or_default(),
    );
}

fn lost_as_text(lost: u64) -> String {
    let now = humantime::format_rfc3339_micros(SystemTime::now());
    format!("{now}  WARN {}", lost_lines(lost))
}

fn lost_as_json(lost: u64) -> String {
    let now = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let line = serde_json::json!({
        "timestamp": now,
        "level": "WARN",
        "message": lost_lines(lost),
        "lost": lost,
        "target": module_path!(),
    });
    line.to_string()
}

fn lost_lines(lost: u64) -> String {
    format!("{lost} log lines before this one were lost, because the log could not be written")
}
